{{/* Name of the chart, for labels. */}}
{{- define "kvloop.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* First part of the names of objects: the release's, and the chart's where that says more. */}}
{{- define "kvloop.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Name of the operator's objects. */}}
{{- define "kvloop.operator" -}}
{{- printf "%s-operator" (include "kvloop.fullname" .) -}}
{{- end -}}

{{/* Cluster-wide objects carry the namespace too: releases in two namespaces do not meet. */}}
{{- define "kvloop.clusterName" -}}
{{- printf "%s-%s" (include "kvloop.operator" .) .Release.Namespace | trimSuffix "-" -}}
{{- end -}}

{{- define "kvloop.selector" -}}
app.kubernetes.io/name: {{ include "kvloop.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "kvloop.labels" -}}
{{ include "kvloop.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "kvloop.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "kvloop.operator" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name is needed where serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* An image by digest where there is one, else by tag. Takes (dict "image" … "root" .). */}}
{{- define "kvloop.image" -}}
{{- if .image.digest -}}
{{- printf "%s@%s" .image.repository .image.digest -}}
{{- else -}}
{{- printf "%s:%s" .image.repository (default .root.Chart.AppVersion .image.tag) -}}
{{- end -}}
{{- end -}}

{{/* Takes CEL rules out of a schema, in place: before 1.25 the API server refuses the field. The
operator checks the same rules itself. */}}
{{- define "kvloop.withoutRules" -}}
{{- if kindIs "map" . -}}
{{- $_ := unset . "x-kubernetes-validations" -}}
{{- range . -}}{{- include "kvloop.withoutRules" . -}}{{- end -}}
{{- else if kindIs "slice" . -}}
{{- range . -}}{{- include "kvloop.withoutRules" . -}}{{- end -}}
{{- end -}}
{{- end -}}
