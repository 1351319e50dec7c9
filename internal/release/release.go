// Package release says which release of relayd a program is.
package release

import "runtime/debug"

// number is set by the linker when a release is built:
// -ldflags "-X relayd/internal/release.number=1.2.3".
var number string

// String is the release and the version of Go that it was built with: "1.2.3 go1.26.0". What was
// not built as a release is named by its module's version or by its commit.
func String() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := number
	if v == "" {
		v = unreleased(info)
	}
	return v + " " + info.GoVersion
}

func unreleased(info *debug.BuildInfo) string {
	v := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 && (v == "" || v == "(devel)") {
			v = s.Value[:12]
		}
	}
	return v
}
