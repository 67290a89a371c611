{{/* Names and labels that the other templates share. */}}

{{- define "quorate-operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "quorate-operator.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "quorate-operator.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "quorate-operator.serviceAccount" -}}
{{- default (include "quorate-operator.fullname" .) .Values.serviceAccount.name -}}
{{- end -}}

{{- define "quorate-operator.selector" -}}
app.kubernetes.io/name: {{ include "quorate-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "quorate-operator.labels" -}}
{{ include "quorate-operator.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* Labels by which a Prometheus selects monitors and rules; the user's own win. */}}
{{- define "quorate-operator.monitoringLabels" -}}
{{- toYaml (merge (deepCopy .Values.monitoring.labels) (include "quorate-operator.labels" . | fromYaml)) -}}
{{- end -}}
