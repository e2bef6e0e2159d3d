{{- define "text-pipeline.name" -}}
{{ printf "%s-%s" .root.Release.Name .part | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* What selects the pods of a part; it can never change. */}}
{{- define "text-pipeline.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end }}

{{- define "text-pipeline.labels" -}}
{{ include "text-pipeline.selector" . }}
app.kubernetes.io/version: {{ .root.Values.image.tag | default .root.Chart.AppVersion | trunc 63 | trimAll "._-" | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{/* The environment: in the pod itself, so that a changed setting rolls the pods, and the migration's hook, which runs
before anything else exists, has it too. */}}
{{- define "text-pipeline.environment" -}}
- {name: BIND_HOST, value: 0.0.0.0}
- {name: HEARTBEAT_FILE, value: /tmp/heartbeat}
{{- range $name, $value := .root.Values.settings }}
- {name: {{ $name }}, value: {{ include "text-pipeline.written" (dict "name" $name "value" $value) | quote }}}
{{- end }}
{{- if .root.Values.kafkaCaSecretName }}
- {name: KAFKA_SSL_CAFILE, value: /etc/kafka-ca/ca.crt}
{{- end }}
{{- range $name := .is.secrets }}
- name: {{ $name }}
  valueFrom: {secretKeyRef: {name: {{ $.root.Values.secretName }}, key: {{ $name }}}}
{{- end }}
{{- range $name := .is.optional }}
- name: {{ $name }}
  valueFrom: {secretKeyRef: {name: {{ $.root.Values.secretName }}, key: {{ $name }}, optional: true}}
{{- end }}
{{- end }}

{{/* A setting as it was written: Helm has read on and off as booleans, like the true and false of OpenTelemetry's own
variables, and whole numbers as floats, of which it would write a large one with an exponent. */}}
{{- define "text-pipeline.written" -}}
{{- if and (kindIs "bool" .value) (not (hasPrefix "OTEL_" .name)) }}
{{- ternary "on" "off" .value }}
{{- else if and (kindIs "float64" .value) (eq (floor .value) .value) }}
{{- int64 .value }}
{{- else }}
{{- .value }}
{{- end }}
{{- end }}

{{- define "text-pipeline.probes" -}}
{{- if .is.port -}}
startupProbe:
  httpGet: {path: {{ .is.path }}, port: http}
  periodSeconds: 2
  timeoutSeconds: 5
  failureThreshold: 60
readinessProbe:
  httpGet: {path: {{ .is.path }}, port: http}
  periodSeconds: 5
  timeoutSeconds: 5
livenessProbe:
  httpGet: {path: {{ .is.path }}, port: http}
  periodSeconds: 20
  timeoutSeconds: 10
  failureThreshold: 3
{{- else -}}
startupProbe:
  exec: {command: [python, -m, telemetry.heartbeat]}
  periodSeconds: 5
  timeoutSeconds: 10
  failureThreshold: 36
livenessProbe:
  exec: {command: [python, -m, telemetry.heartbeat]}
  periodSeconds: 30
  timeoutSeconds: 10
  failureThreshold: 3
{{- end }}
{{- end }}

{{/* A pod with one container: .root, .part (its name), .is (its entry in text-pipeline.parts) and .resources. */}}
{{- define "text-pipeline.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: 30
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{ toJson . }}
{{- end }}
securityContext: {{ toJson .root.Values.podSecurityContext }}
{{- with .root.Values.nodeSelector }}
nodeSelector: {{ toJson . }}
{{- end }}
{{- with .root.Values.tolerations }}
tolerations: {{ toJson . }}
{{- end }}
{{- with .root.Values.affinity }}
affinity: {{ toJson . }}
{{- end }}
containers:
  - name: {{ .part }}
    {{- with .root.Values.image }}
    image: {{ printf "%s:%s" .repository (.tag | default $.root.Chart.AppVersion) }}{{ with .digest }}@{{ . }}{{ end }}
    {{- end }}
    imagePullPolicy: {{ .root.Values.image.pullPolicy }}
    command: {{ toJson .is.command }}
    env: {{- include "text-pipeline.environment" . | nindent 6 }}
    {{- if .is.port }}
    ports: [{name: http, containerPort: {{ .is.port }}}]
    {{- end }}
    {{- if ne .part "migrate" }}
    {{- include "text-pipeline.probes" . | nindent 4 }}
    {{- end }}
    {{- if or (eq .part "text-writer-service") (eq .part "embedding-service") }}
    # The pod leaves the service while this sleeps: no request comes any more when gunicorn ends.
    lifecycle: {preStop: {exec: {command: [sleep, "5"]}}}
    {{- end }}
    resources: {{ toJson .resources }}
    securityContext:
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities: {drop: [ALL]}
    volumeMounts:
      - {name: tmp, mountPath: /tmp}
      {{- if .root.Values.kafkaCaSecretName }}
      - {name: kafka-ca, mountPath: /etc/kafka-ca, readOnly: true}
      {{- end }}
volumes:
  - {name: tmp, emptyDir: {sizeLimit: 256Mi}}
  {{- if .root.Values.kafkaCaSecretName }}
  - {name: kafka-ca, secret: {secretName: {{ .root.Values.kafkaCaSecretName }}}}
  {{- end }}
{{- end }}

{{/* Servers as KEDA has to be told of them: it looks names up from its own namespace, where a short one is nobody, or
somebody else. */}}
{{- define "text-pipeline.qualified" -}}
{{ regexReplaceAll "(^|,\\s*)([A-Za-z0-9-]+)(:[0-9]+|$)" (toString .servers) (printf "${1}${2}.%s${3}" .root.Release.Namespace) }}
{{- end }}
