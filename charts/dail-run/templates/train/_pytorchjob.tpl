{{/*
The Kubeflow training operator's PyTorchJob: one master and workers, started by dail's launcher, which ends with the code of the rank that
failed; or, elastic, workers alone that meet by rendezvous: then torchrun's agents form the group anew, with those that are left, from the last
checkpoint. restartPolicy ExitCode: the operator starts pods killed by signals (128 and above) anew; every other code ends the job, and the conductor
decides by docs/exit-codes.md. Arguments: root, task, component, pool.
*/}}
{{- define "dail.pytorchjob" -}}
{{- $values := .root.Values -}}
{{- $pool := index $values.pools .pool -}}
{{- $launcher := list "dail_runtime.train.launch" -}}
{{- if $values.elastic }}{{ $launcher = list "torch.distributed.run" "--module" "--" "dail_runtime.stages" }}{{ end -}}
{{- $command := concat (list "python" "-m") $launcher (list .task.name "--run" $values.run.runUri "--job" $values.run.jobDigest) -}}
{{- $pod := include "dail.pod" (merge (dict "container" "pytorch" "command" $command "grace" (int64 $values.timeouts.trainSave)
  "port" (dict "name" "pytorchjob-port" "containerPort" 23456) "metrics" true) .) -}}
apiVersion: kubeflow.org/v1
kind: PyTorchJob
metadata:
  {{- include "dail.taskMetadata" . | nindent 2 }}
spec:
  nprocPerNode: {{ max 1 (int64 $pool.gpus) | quote }}
  runPolicy:
    {{- if include "dail.queue" . }}
    suspend: true
    {{- end }}
    cleanPodPolicy: Running
    backoffLimit: {{ $values.retries }}
    {{- with $values.timeouts.stage }}
    activeDeadlineSeconds: {{ int64 . }}
    {{- end }}
  {{- with $values.elastic }}
  elasticPolicy:
    rdzvBackend: c10d
    minReplicas: {{ .minWorkers }}
    maxReplicas: {{ .maxWorkers }}
    maxRestarts: {{ .maxRestarts }}
  {{- end }}
  pytorchReplicaSpecs:
    {{- if not $values.elastic }}
    Master:
      replicas: 1
      restartPolicy: ExitCode
      template:
        {{- $pod | nindent 8 }}
    {{- end }}
    {{- $workers := sub .task.workers (ternary 0 1 (not (empty $values.elastic))) }}
    {{- if gt $workers 0 }}
    Worker:
      replicas: {{ $workers }}
      restartPolicy: ExitCode
      template:
        {{- $pod | nindent 8 }}
    {{- end }}
{{- end }}
