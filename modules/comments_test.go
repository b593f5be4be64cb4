package modules

import (
	"strings"
	"testing"
)

func TestEveryCommentIsOfAKey(t *testing.T) {
	known := map[string]bool{}
	for _, key := range Schema(Builtin()).Keys() {
		section, _, _ := strings.Cut(key.Name, ".")
		known[key.Name], known[section] = true, true
	}
	of := map[string]string{}
	for name := range comments(Builtin()) {
		of[name] = "Comments"
	}
	for name := range withoutNative {
		of[name] = "withoutNative"
	}
	for _, name := range order {
		of[name] = "order"
	}
	for _, r := range roles {
		for name := range r.on {
			of["modules."+name] = r.name
		}
		for _, name := range r.first {
			of[name] = r.name
		}
		for name, module := range r.uses {
			of[name], of["modules."+module] = r.name, r.name
		}
	}
	for name, where := range of {
		if !known[name] {
			t.Errorf("%s is named in %s and is no key or section", name, where)
		}
	}
}
