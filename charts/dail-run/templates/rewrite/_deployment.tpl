{{/* The model servers of a task: unmodified vLLM, started by dail_runtime.serve. Arguments: root, task, component, pool. */}}
{{- define "dail.deployment" -}}
{{- $values := .root.Values -}}
{{- $command := list "python" "-m" "dail_runtime.serve" "--run" $values.run.runUri "--job" $values.run.jobDigest "--task" .task.name "--port" "8000"
  "--drain" (toString (int64 $values.timeouts.serverDrain)) -}}
{{- $selector := include "dail.serverSelector" . -}}
{{- $start := int64 $values.timeouts.serverStart -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  {{- include "dail.taskMetadata" . | nindent 2 }}
spec:
  replicas: {{ int64 .task.replicas }}
  revisionHistoryLimit: 0
  progressDeadlineSeconds: {{ add $start 600 }}
  {{- /* Never more GPUs than asked for, not even for a moment. */}}
  strategy:
    type: Recreate
  selector:
    matchLabels:
      {{- $selector | nindent 6 }}
  template:
    {{- include "dail.pod" (merge (dict
      "container" "server"
      "command" $command
      "port" (dict "name" "http" "containerPort" 8000)
      "extras" (include "dail.serverExtras" .)
      "spread" $selector
      "grace" (add 10 (int64 $values.timeouts.serverDrain))) .) | nindent 4 }}
{{- end }}

{{/*
Probes and drain of a server. Starting may take as long as the model needs to arrive and load; then a server is ready once it lists
the model, and lives as long as its engine does. The pause before SIGTERM lets the name's records lapse, so that no new request arrives;
with it and the drain 5 of the grace period's seconds are left for the end of the process.
*/}}
{{- define "dail.serverExtras" -}}
startupProbe:
  httpGet: {path: /health, port: http}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: {{ div (add (int64 .root.Values.timeouts.serverStart) 4) 5 }}
readinessProbe:
  httpGet: {path: /v1/models, port: http}
  periodSeconds: 5
  timeoutSeconds: 10
  failureThreshold: 3
livenessProbe:
  httpGet: {path: /health, port: http}
  periodSeconds: 20
  timeoutSeconds: 10
  failureThreshold: 6
lifecycle:
  preStop:
    sleep: {seconds: 5}
{{- end }}
