{{/*
The batch/v1 Job that runs a task's stage process. Arguments: root, task, pool, component; optional: env.
A pod that the cluster took away is replaced. Every other that fails ends the Job: attempts are the conductor's to count.
*/}}
{{- define "dail.job" -}}
{{- $values := .root.Values -}}
{{- $command := list "python" "-m" "dail_runtime.stages" .task.name "--run" $values.run.runUri "--job" $values.run.jobDigest -}}
apiVersion: batch/v1
kind: Job
metadata:
  {{- include "dail.taskMetadata" . | nindent 2 }}
spec:
  {{- if include "dail.queue" . }}
  suspend: true
  {{- end }}
  completions: 1
  parallelism: 1
  backoffLimit: 0
  podReplacementPolicy: Failed
  {{- with $values.timeouts.stage }}
  activeDeadlineSeconds: {{ int64 . }}
  {{- end }}
  podFailurePolicy:
    {{- include "dail.podFailurePolicy" "stage" | nindent 4 }}
  template:
    {{- include "dail.pod" (merge (dict "container" "stage" "command" $command "restartPolicy" "Never" "grace" 60 "metrics" true) .) | nindent 4 }}
{{- end }}

{{/* Codes 2 to 63 say that trying again will not help (docs/exit-codes.md). Argument: name of the container. */}}
{{- define "dail.podFailurePolicy" -}}
rules:
  - action: Ignore
    onPodConditions:
      - type: DisruptionTarget
        status: "True"
  - action: FailJob
    onExitCodes:
      containerName: {{ . }}
      operator: In
      values: {{ untilStep 2 64 1 | toJson }}
{{- end }}
