{{- /* The image of every container. */}}
{{- define "vdpa.image" -}}
{{- with .Values.image -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end -}}
{{- end }}

{{- /* The platform's paths with those of .Values.paths, and its SELinux type with .Values.seLinuxType, over
    them, as YAML. */}}
{{- define "vdpa.paths" -}}
{{- $platforms := .Files.Get "files/platforms.yaml" | fromYaml -}}
{{- $paths := mergeOverwrite (deepCopy $platforms.kubeadm) (index $platforms .Values.platform) -}}
{{- range $name, $path := .Values.paths }}{{ if $path }}{{ $_ := set $paths $name $path }}{{ end }}{{ end -}}
{{- with .Values.seLinuxType }}{{ $_ := set $paths "seLinuxType" . }}{{ end -}}
{{- toYaml $paths -}}
{{- end }}

{{- /* Whether the datapath needs the host's network namespace. */}}
{{- define "vdpa.hostNetwork" -}}
{{- if or .Values.uplink.enabled .Values.hardware.enabled }}true{{ end -}}
{{- end }}

{{- /* A configuration as text, after a look at what it needs. Takes a list: the root, where it is, the text. */}}
{{- define "vdpa.config" -}}
{{- $root := index . 0 -}}
{{- $where := index . 1 -}}
{{- $default := ternary "files/hardware.yaml" "files/software.yaml" $root.Values.hardware.enabled -}}
{{- $text := index . 2 | default ($root.Files.Get $default) -}}
{{- $parsed := $text | fromYaml -}}
{{- if hasKey $parsed "Error" }}{{ fail (printf "%s: %s" $where $parsed.Error) }}{{ end -}}
{{- range $resource := $parsed.resources -}}
{{- $uplink := dig "software" "uplink" "none" $resource -}}
{{- if and (ne (toString $uplink) "none") (not (include "vdpa.hostNetwork" $root)) -}}
{{- fail (printf "%s: resource %s has an uplink, but the datapath has no rights for one: set uplink.enabled=true" $where $resource.name) -}}
{{- end -}}
{{- if and (not $root.Values.hardware.enabled) (kindIs "map" $uplink) (or $uplink.pci $uplink.xdp) -}}
{{- fail (printf "%s: resource %s has an uplink with pci or xdp, which needs hardware.enabled=true" $where $resource.name) -}}
{{- end -}}
{{- end -}}
{{- $text | trim -}}
{{- end }}

{{- define "vdpa.priorityClass" -}}
system-node-critical
{{- end }}

{{- /* What the pods of all DaemonSets share: where they run, and as whom. */}}
{{- define "vdpa.pod" -}}
priorityClassName: {{ include "vdpa.priorityClass" . }}   # pods lose their network without it
tolerations: {{ toJson .Values.tolerations }}
automountServiceAccountToken: false       # it never speaks to the API server
{{- if eq .Values.platform "openshift" }}
serviceAccountName: vdpa
{{- end }}
{{- with .Values.image.pullSecrets }}
imagePullSecrets: {{ toJson . }}
{{- end }}
{{- with (include "vdpa.paths" . | fromYaml).seLinuxType }}
securityContext:
  seLinuxOptions: {type: {{ . }}}         # confined containers may not use the node's sockets and directories
{{- end }}
{{- end }}
