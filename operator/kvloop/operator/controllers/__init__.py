"""One controller a kind: looks at what is there, applies what should be, tells the truth."""
