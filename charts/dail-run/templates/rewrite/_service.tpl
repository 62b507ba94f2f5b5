{{/* The name under which a driver finds every ready server. Arguments: root, task, component, pool. */}}
{{- define "dail.service" -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ .task.object }}
  labels:
    {{- include "dail.labels" . | nindent 4 }}
spec:
  clusterIP: None
  selector:
    {{- include "dail.serverSelector" . | nindent 4 }}
  ports:
    - name: http
      port: 8000
      targetPort: http
{{- end }}
