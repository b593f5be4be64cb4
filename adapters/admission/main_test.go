package admission

import (
	"errors"
	"testing"

	"go.uber.org/goleak"

	"github.com/opencloud/ocnode/ports"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// expectLimit fails the test unless err is a refusal of a limit, with this code; "" wants
// no error.
func expectLimit(t *testing.T, what string, err error, code ports.Code, limit ports.Limit) {
	t.Helper()
	refusal, refused := errors.AsType[*ports.Refusal](err)
	switch {
	case code == "" && err != nil:
		t.Errorf("%s: %v", what, err)
	case code != "" && (!refused || refusal.Code != code || refusal.Limit != limit):
		t.Errorf("%s: got %v, want %s of the limit %s", what, err, code, limit)
	}
}
