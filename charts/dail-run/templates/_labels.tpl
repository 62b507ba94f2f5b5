{{/* Labels of an object. Arguments: root, component; optional: task (a task of run.tasks), over (further labels, before those of the run). */}}
{{- define "dail.labels" -}}
app.kubernetes.io/name: dail
app.kubernetes.io/instance: {{ .root.Values.run.name }}
app.kubernetes.io/component: {{ .component }}
app.kubernetes.io/managed-by: dail
app.kubernetes.io/part-of: dail
app.kubernetes.io/version: {{ .root.Values.run.dailVersion | replace "+" "_" | quote }}
dail.dev/run: {{ .root.Values.run.name }}
{{- with .task }}
dail.dev/task: {{ .slug }}
dail.dev/stage: {{ .stage }}
{{- end }}
{{- with merge (dict) (.over | default dict) .root.Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* What selects the model servers of a task. Arguments: root, task. */}}
{{- define "dail.serverSelector" -}}
app.kubernetes.io/component: server
dail.dev/run: {{ .root.Values.run.name }}
dail.dev/task: {{ .task.slug }}
{{- end }}

{{/* Metadata of one object of a task; the conductor's namespace is its own. Arguments: root, component, task, pool. */}}
{{- define "dail.taskMetadata" -}}
name: {{ .task.object }}
labels:
  {{- include "dail.labels" . | nindent 2 }}
  {{- with include "dail.queue" . }}
  kueue.x-k8s.io/queue-name: {{ . | quote }}
  {{- end }}
{{- with .task.reason }}
annotations:
  dail.dev/name-shortened: {{ . | quote }}
{{- end }}
{{- end }}

{{/* Metadata of an object that the run has once. Arguments: root, component. */}}
{{- define "dail.metadata" -}}
name: {{ .name | default .root.Values.run.name }}
namespace: {{ .root.Release.Namespace | quote }}
labels:
  {{- include "dail.labels" . | nindent 2 }}
{{- end }}

{{/* Kueue LocalQueue of a pool: its own, else that of all pools; nothing where neither is set. Arguments: root, pool. */}}
{{- define "dail.queue" -}}
{{- $pool := index .root.Values.pools .pool -}}
{{- if kindIs "string" $pool.queue }}{{ $pool.queue }}{{ else }}{{ .root.Values.queue | default "" }}{{ end -}}
{{- end }}

{{/* ServiceAccount of every pod. Argument: root. */}}
{{- define "dail.serviceAccount" -}}
{{ .Values.serviceAccount | default .Values.run.name }}
{{- end }}
