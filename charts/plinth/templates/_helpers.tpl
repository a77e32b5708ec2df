{{/* The release's name, with the chart's unless it is in it. */}}
{{- define "plinth.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "plinth.node" -}}{{ include "plinth.fullname" . }}-node{{- end -}}
{{- define "plinth.controller" -}}{{ include "plinth.fullname" . }}-controller{{- end -}}

{{/* What never changes between versions: for selectors. Call with (list . component). */}}
{{- define "plinth.selectorLabels" -}}
app.kubernetes.io/name: plinth
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* Labels of every object. Call with (list . component). */}}
{{- define "plinth.labels" -}}
{{- $root := index . 0 -}}
{{ include "plinth.selectorLabels" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ $root.Chart.Name }}-{{ $root.Chart.Version }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "plinth.image" -}}
{{- include "plinth.imageName" (list .Values.image .Chart.AppVersion) -}}
{{- end -}}

{{/* An image's full name. Call with (list values-of-an-image default-tag). */}}
{{- define "plinth.imageName" -}}
{{- $i := index . 0 -}}
{{- with $i.registry }}{{ . }}/{{ end -}}
{{- $i.repository -}}
{{- if $i.digest }}@{{ $i.digest }}{{ else }}:{{ $i.tag | default (index . 1) }}{{ end -}}
{{- end -}}

{{/*
A sidecar of Kubernetes that speaks to the controller's socket. Call with
(dict "root" . "name" container "values" its-values "args" list).
*/}}
{{- define "plinth.sidecar" -}}
- name: {{ .name }}
  image: {{ include "plinth.imageName" (list .values.image "") }}
  imagePullPolicy: {{ .values.image.pullPolicy }}
  args:
    - --csi-address=/csi/csi.sock
    {{- range .args }}
    - {{ . }}
    {{- end }}
    - --kube-api-qps=50
    - --kube-api-burst=100
    {{- if gt (int .root.Values.controller.replicas) 1 }}
    - --leader-election
    - --leader-election-namespace=$(POD_NAMESPACE)
    {{- end }}
    {{- range .values.extraArgs }}
    - {{ . | quote }}
    {{- end }}
  env:
    - name: POD_NAMESPACE
      valueFrom:
        fieldRef:
          fieldPath: metadata.namespace
  securityContext:
    allowPrivilegeEscalation: false
    readOnlyRootFilesystem: true
    capabilities:
      drop: [ALL]
  {{- with .values.resources }}
  resources:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  volumeMounts:
    - name: socket
      mountPath: /csi
{{- end -}}

{{- define "plinth.poolsFile" -}}
{{ toYaml (dict "pools" .Values.pools) }}
{{- end -}}

{{/*
The host directories that the agent needs for its pools, as a JSON list. It is
the parent of a pool's path that is mounted, so that the agent sees a mount
come and go as the node does, and nothing is made where a disk is missing. A
pool in Plinth's own directory is the exception: that directory is made. A
directory below another one of the list is left out, because it is there with it.
*/}}
{{- define "plinth.poolMounts" -}}
{{- $own := printf "%s/pools/" .Values.statePath -}}
{{- $wanted := list -}}
{{- range .Values.pools -}}
  {{- $wanted = append $wanted (ternary .path (dir .path) (hasPrefix $own .path)) -}}
{{- end -}}
{{- $mounts := list -}}
{{- range $path := $wanted | uniq | sortAlpha -}}
  {{- $below := false -}}
  {{- range $other := $wanted -}}
    {{- if hasPrefix (printf "%s/" $other) $path }}{{ $below = true }}{{ end -}}
  {{- end -}}
  {{- if not $below }}{{ $mounts = append $mounts $path }}{{ end -}}
{{- end -}}
{{- toJson $mounts -}}
{{- end -}}

{{/* A label selector of values as one of kubectl: app=db,tier in (a,b). */}}
{{- define "plinth.selector" -}}
{{- $terms := list -}}
{{- range $key, $value := .matchLabels -}}
  {{- $terms = append $terms (printf "%s=%s" $key $value) -}}
{{- end -}}
{{- range .matchExpressions -}}
  {{- $operator := lower .operator -}}
  {{- if has $operator (list "in" "notin") -}}
    {{- $terms = append $terms (printf "%s %s (%s)" .key $operator (join "," .values)) -}}
  {{- else -}}
    {{- $terms = append $terms (printf "%s%s" (ternary "" "!" (eq $operator "exists")) .key) -}}
  {{- end -}}
{{- end -}}
{{- join "," $terms -}}
{{- end -}}

{{/* The seconds of a duration such as 1h30m; at least 1. */}}
{{- define "plinth.seconds" -}}
{{- $sum := 0 -}}
{{- range regexFindAll "[0-9]+(ms|s|m|h)" . -1 -}}
  {{- $sum = add $sum (mul (regexFind "[0-9]+" . | int) (get (dict "ms" 0 "s" 1 "m" 60 "h" 3600) (regexFind "[a-z]+" .))) -}}
{{- end -}}
{{- max 1 $sum -}}
{{- end -}}

{{/*
What is wrong with a cron schedule as Kubernetes reads it; nothing if it is
right. A part is a number or a name, a range of them, or *, with a step or not.
*/}}
{{- define "plinth.cronFault" -}}
{{- $fields := regexSplit " +" (trim .) -1 -}}
{{- if hasPrefix "@" . -}}
  {{- if not (regexMatch "^@(yearly|annually|monthly|weekly|daily|midnight|hourly|every ([0-9]+(s|m|h))+)$" .) }}it is none of @hourly, @daily, @weekly, @monthly, @yearly, @every 6h{{ end -}}
{{- else if ne (len $fields) 5 -}}
  it has {{ len $fields }} fields and not five: minute, hour, day of the month, month, day of the week
{{- else -}}
  {{- $months := list "JAN" "FEB" "MAR" "APR" "MAY" "JUN" "JUL" "AUG" "SEP" "OCT" "NOV" "DEC" -}}
  {{- $days := list "SUN" "MON" "TUE" "WED" "THU" "FRI" "SAT" -}}
  {{- $kinds := list (list "minute" 0 59 list) (list "hour" 0 23 list) (list "day of the month" 1 31 list) (list "month" 1 12 $months) (list "day of the week" 0 6 $days) -}}
  {{- $faults := list -}}
  {{- range $i, $field := $fields -}}
    {{- $kind := index $kinds $i -}}
    {{- $names := index $kind 3 -}}
    {{- range $part := splitList "," $field -}}
      {{- $right := regexMatch "^([*?]|[0-9]+(-[0-9]+)?|[A-Za-z]{3}(-[A-Za-z]{3})?)(/[1-9][0-9]*)?$" $part -}}
      {{- range regexFindAll "[A-Za-z0-9]+" (index (splitList "/" $part) 0) -1 -}}
        {{- if regexMatch "^[0-9]+$" . -}}
          {{- if or (gt (int .) (index $kind 2)) (lt (int .) (index $kind 1)) }}{{ $right = false }}{{ end -}}
        {{- else if not (has (upper .) $names) }}{{ $right = false }}{{ end -}}
      {{- end -}}
      {{- if not $right }}{{ $faults = append $faults (printf "%q is no %s" $part (index $kind 0)) }}{{ end -}}
    {{- end -}}
  {{- end -}}
  {{- join ", " $faults -}}
{{- end -}}
{{- end -}}
