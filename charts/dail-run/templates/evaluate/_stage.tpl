{{/* Evaluate: answers of a base or tuned model to the held-out problems. */}}
{{- define "dail.stage.evaluate" -}}
{{- include "dail.modelTask" . }}
{{- end }}
