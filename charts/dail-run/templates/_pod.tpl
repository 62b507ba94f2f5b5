{{/*
The template (metadata and spec) of every pod of a run: what its pool says, restricted Pod Security, and the run's store.
Arguments: root, pool, component, container (name), command (list), grace (seconds); optional: task, image, env (list of core/v1 EnvVar),
port (core/v1 ContainerPort),
metrics (whether it serves them), extras (YAML of the container: probes, lifecycle), resources (instead of the pool's), restartPolicy, spread (labels), token (whether it
gets one for the API), record (whether it mounts the record; such a pod may outlive the run's own ServiceAccount).
*/}}
{{- define "dail.pod" -}}
{{- $values := .root.Values -}}
{{- $pool := index $values.pools .pool -}}
{{- range $key := list "cpu" "gpuResource" "memory" "shmSize" }}
{{- if not (index $pool $key) }}{{ fail (printf "pools.%s.%s is null, which takes its default away; remove it, or give it a value" $.pool $key) }}{{ end }}
{{- end -}}
metadata:
  labels:
    {{- include "dail.labels" (merge (dict "over" $pool.labels) .) | nindent 4 }}
  {{- $annotations := merge (dict) ($pool.annotations | default dict) }}
  {{- if and .metrics $values.metricsPort }}
  {{- $annotations = merge $annotations (dict "prometheus.io/scrape" "true" "prometheus.io/port" (toString (int64 $values.metricsPort))) }}
  {{- end }}
  {{- with $annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- with .restartPolicy }}
  restartPolicy: {{ . }}
  {{- end }}
  {{- if or $values.serviceAccount (not .record) }}
  serviceAccountName: {{ include "dail.serviceAccount" .root | quote }}
  {{- end }}
  automountServiceAccountToken: {{ .token | default false }}
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ .grace }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    fsGroup: 65532
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile:
      type: RuntimeDefault
  {{- with $values.secrets.imagePull }}
  imagePullSecrets:
    - name: {{ . | quote }}
  {{- end }}
  {{- with $pool.scheduler }}
  schedulerName: {{ . | quote }}
  {{- end }}
  {{- with $pool.priorityClass }}
  priorityClassName: {{ . | quote }}
  {{- end }}
  {{- with $pool.runtimeClass }}
  runtimeClassName: {{ . | quote }}
  {{- end }}
  {{- with $pool.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $pool.tolerations }}
  tolerations:
    {{- range . }}
    - {{ include "dail.present" . | nindent 6 | trim }}
    {{- end }}
  {{- end }}
  {{- with $pool.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .spread }}
  topologySpreadConstraints:
    - topologyKey: kubernetes.io/hostname
      maxSkew: 1
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- . | nindent 10 }}
  {{- end }}
  containers:
    - name: {{ .container }}
      image: {{ .image | default $values.image | quote }}
      imagePullPolicy: {{ $values.imagePullPolicy }}
      command: {{ toJson .command }}
      env:
        {{- include "dail.env" . | nindent 8 }}
      {{- if or .port (and .metrics $values.metricsPort) }}
      ports:
        {{- with .port }}
        - {{ toYaml . | nindent 10 | trim }}
        {{- end }}
        {{- if and .metrics $values.metricsPort }}
        - name: metrics
          containerPort: {{ int64 $values.metricsPort }}
        {{- end }}
      {{- end }}
      {{- with .extras }}
      {{- . | nindent 6 }}
      {{- end }}
      resources:
        {{- if .resources }}
        {{- toYaml .resources | nindent 8 }}
        {{- else }}
        {{- include "dail.resources" $pool | nindent 8 }}
        {{- end }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities:
          drop: [ALL]
      terminationMessagePolicy: FallbackToLogsOnError
      volumeMounts:
        - name: tmp
          mountPath: /tmp
        - name: home
          mountPath: /home/dail
        - name: shm
          mountPath: /dev/shm
        - name: cache
          mountPath: /cache
        {{- if .record }}
        - name: record
          mountPath: /record
          readOnly: true
        {{- end }}
        {{- range $pool.volumes }}
        - name: {{ .name | quote }}
          mountPath: {{ .mountPath | quote }}
          {{- if .readOnly }}
          readOnly: true
          {{- end }}
        {{- end }}
  volumes:
    - name: tmp
      emptyDir: {}
    - name: home
      emptyDir: {}
    - name: shm
      emptyDir:
        medium: Memory
        sizeLimit: {{ $pool.shmSize | quote }}
    - name: cache
      {{- with include "dail.claim" .root }}
      persistentVolumeClaim:
        claimName: {{ . | quote }}
      {{- else }}
      emptyDir: {}
      {{- end }}
    {{- if .record }}
    - name: record
      configMap:
        name: {{ $values.run.name }}
    {{- end }}
    {{- range $pool.volumes }}
    - name: {{ .name | quote }}
      {{- toYaml .source | nindent 6 }}
    {{- end }}
{{- end }}

{{/* Claim of the model cache: an existing one, that of the run, or nothing. Argument: root. */}}
{{- define "dail.claim" -}}
{{- with .Values.cache }}{{ .claim | default (printf "%s-cache" $.Values.run.name) }}{{ end -}}
{{- end }}

{{/* Requests and limits of a pool's pod. GPUs and other extended resources: limit = request, as Kubernetes demands. Argument: a pool. */}}
{{- define "dail.resources" -}}
requests:
  cpu: {{ .cpu | quote }}
  memory: {{ .memory | quote }}
  {{- with .ephemeralStorage }}
  ephemeral-storage: {{ . | quote }}
  {{- end }}
limits:
  {{- with .cpuLimit }}
  cpu: {{ . | quote }}
  {{- end }}
  memory: {{ .memory | quote }}
  {{- with .ephemeralStorage }}
  ephemeral-storage: {{ . | quote }}
  {{- end }}
  {{- if .gpus }}
  {{ .gpuResource }}: {{ int64 .gpus }}
  {{- end }}
  {{- range $name, $count := .resources }}
  {{ $name }}: {{ int64 $count }}
  {{- end }}
{{- end }}

{{/*
Resources of the conductor and the test, as YAML: little, whatever else its pool's pods get. A CPU limit of the pool is theirs, too: a quota
may demand one of every pod. Argument: root.
*/}}
{{- define "dail.littleResources" -}}
{{- $resources := deepCopy .Values.conductor.resources -}}
{{- with .Values.pools.control.cpuLimit }}{{ $resources = merge $resources (dict "limits" (dict "cpu" .)) }}{{ end -}}
{{- toYaml $resources -}}
{{- end }}

{{/* Environment of every container: the store, the hub, writable folders, and what the pool adds. Arguments as dail.pod. */}}
{{- define "dail.env" -}}
{{- $values := .root.Values -}}
{{- $pool := index $values.pools .pool -}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: POD_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
{{- with $values.run.endpoint }}
- name: AWS_ENDPOINT_URL_S3
  value: {{ . | quote }}
{{- end }}
{{- with $values.run.region }}
- name: AWS_REGION
  value: {{ . | quote }}
{{- end }}
{{- with $values.storage.credentialsSecret }}
- name: AWS_ACCESS_KEY_ID
  valueFrom: {secretKeyRef: {name: {{ . | quote }}, key: AWS_ACCESS_KEY_ID}}
- name: AWS_SECRET_ACCESS_KEY
  valueFrom: {secretKeyRef: {name: {{ . | quote }}, key: AWS_SECRET_ACCESS_KEY}}
- name: AWS_SESSION_TOKEN
  valueFrom: {secretKeyRef: {name: {{ . | quote }}, key: AWS_SESSION_TOKEN, optional: true}}
{{- end }}
{{- with $values.secrets.hfToken }}
- name: HF_TOKEN
  valueFrom: {secretKeyRef: {name: {{ . | quote }}, key: HF_TOKEN}}
{{- end }}
{{- if $values.offline }}
- name: HF_HUB_OFFLINE
  value: "1"
- name: TRANSFORMERS_OFFLINE
  value: "1"
{{- end }}
- name: HOME
  value: /home/dail
- name: TMPDIR
  value: /tmp
- name: HF_HOME
  value: /cache/huggingface
- name: DAIL_CACHE
  value: /cache/dail
- name: DAIL_DEVICE
  value: {{ if and $pool.gpus (not .resources) }}cuda{{ else }}cpu{{ end }}
{{- if or .resources (not $pool.gpus) }}
{{- /* Without this, the NVIDIA runtime shows every GPU of the node to a pod that asked for none. */}}
- name: NVIDIA_VISIBLE_DEVICES
  value: void
{{- end }}
{{- if and .metrics $values.metricsPort }}
- name: DAIL_METRICS_PORT
  value: {{ int64 $values.metricsPort | quote }}
- name: DAIL_RUN
  value: {{ $values.run.name }}
{{- end }}
{{- range .env }}
- {{ toYaml . | nindent 2 | trim }}
{{- end }}
{{- range $pool.env }}
- name: {{ .name | quote }}
  {{- if .secret }}
  valueFrom: {secretKeyRef: {name: {{ .secret.name | quote }}, key: {{ .secret.key | quote }}}}
  {{- else }}
  value: {{ .value | quote }}
  {{- end }}
{{- end }}
{{- end }}

{{/* A mapping without its empty fields. Argument: the mapping. */}}
{{- define "dail.present" -}}
{{- $present := dict -}}
{{- range $key, $value := . }}{{ if not (kindIs "invalid" $value) }}{{ $_ := set $present $key $value }}{{ end }}{{ end -}}
{{- toYaml $present -}}
{{- end }}
