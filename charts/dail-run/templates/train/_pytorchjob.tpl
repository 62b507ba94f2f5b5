{{/*
The Kubeflow training operator's PyTorchJob: one master and workers, or, elastic, workers alone that meet by rendezvous and go on from the last
checkpoint with those that are left. dail's launcher reads which from the operator's variables, and ends with the code of the rank that failed.
A pod that fails ends the job, and the conductor decides by docs/exit-codes.md whether there is another attempt: the others cannot go on
without the one. An elastic group can, so there the operator starts a pod that was killed by a signal (128 and above) again: restartPolicy
ExitCode. No backoffLimit: it has the operator delete failed pods before anyone could read why. Of the seconds that a pod gets to save,
the last ten are the launcher's, to say what happened. Arguments: root, task, component, pool.
*/}}
{{- define "dail.pytorchjob" -}}
{{- $values := .root.Values -}}
{{- $pool := index $values.pools .pool -}}
{{- $restart := ternary "Never" "ExitCode" (empty $values.elastic) -}}
{{- $command := list "python" "-m" "dail_runtime.train.launch" .task.name "--run" $values.run.runUri "--job" $values.run.jobDigest
  "--grace" (toString (max 5 (sub (int64 $values.timeouts.trainSave) 10))) -}}
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
    {{- with $values.timeouts.stage }}
    activeDeadlineSeconds: {{ int64 . }}
    {{- end }}
  {{- with $values.elastic }}
  elasticPolicy:
    rdzvBackend: c10d
    minReplicas: {{ int64 .minWorkers }}
    maxReplicas: {{ int64 .maxWorkers }}
    maxRestarts: {{ int64 .maxRestarts }}
  {{- end }}
  pytorchReplicaSpecs:
    {{- if not $values.elastic }}
    Master:
      replicas: 1
      restartPolicy: {{ $restart }}
      template:
        {{- $pod | nindent 8 }}
    {{- end }}
    {{- $workers := sub .task.workers (ternary 0 1 (not (empty $values.elastic))) }}
    {{- if gt $workers 0 }}
    Worker:
      replicas: {{ $workers }}
      restartPolicy: {{ $restart }}
      template:
        {{- $pod | nindent 8 }}
    {{- end }}
{{- end }}
