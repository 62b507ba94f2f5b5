{{/* Teacher check: privileged answers come from servers; the traces are scored in the driver itself, so it has the pool of the training. */}}
{{- define "dail.stage.check" -}}
{{- include "dail.modelTask" . }}
{{- end }}
