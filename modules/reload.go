package modules

import (
	"log/slog"
	"reflect"
)

// Reloads are what takes over settings while the node runs: those whose field in a
// section has the tag `live:"true"`.
type Reloads struct {
	started, current *Plan
	funcs            []func(*Plan)
}

func newReloads(plan *Plan) *Reloads { return &Reloads{started: plan, current: plan} }

// Add adds what is called with the new plan when a live key of any section has changed.
func (r *Reloads) Add(f func(*Plan)) { r.funcs = append(r.funcs, f) }

// apply moves on to plan, as far as that can be.
func (r *Reloads) apply(plan *Plan, log *slog.Logger) {
	file := plan.config.File()
	if was := r.current.config.File(); was != "" && file == "" {
		// Its settings would all be gone, and most likely somebody is just writing it anew.
		log.Error("the configuration file is gone and nothing was taken over; put it back and send SIGHUP again", "file", was)
		return
	}
	taken, waiting := []string{}, []string{} // in JSON, [] where there is none
	for _, key := range plan.config.Keys() {
		switch {
		case key.Live && plan.differs(r.current, key.Name):
			taken = append(taken, key.Name)
		case !key.Live && plan.differs(r.started, key.Name):
			waiting = append(waiting, key.Name)
		}
	}
	r.current = plan
	if len(taken) > 0 {
		for _, f := range r.funcs {
			f(plan)
		}
	}
	log = log.With("file", file, "taken", taken)
	switch {
	case len(waiting) > 0:
		log.Warn("configuration reread; some of what changed can only change with a restart", "needRestart", waiting)
	case file == "":
		log.Info("there is no configuration file to reread")
	default:
		log.Info("configuration reread")
	}
}

// differs compares what counts in the end: a default may depend on what else changed, and
// a file that a key names may have another content.
func (p *Plan) differs(from *Plan, key string) bool {
	is, _ := effective(p.config, key)
	was, _ := effective(from.config, key)
	return !reflect.DeepEqual(is, was) || !reflect.DeepEqual(p.contents[key], from.contents[key])
}
