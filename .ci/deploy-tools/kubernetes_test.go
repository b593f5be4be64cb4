package deploytools

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencloud/ocnode/cmd/ocnodetest"
	"github.com/zegl/kube-score/config"
	ks "github.com/zegl/kube-score/domain"
	"github.com/zegl/kube-score/parser"
	"github.com/zegl/kube-score/score"
	"github.com/zegl/kube-score/score/checks"
	"github.com/zegl/kube-score/scorecard"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

const (
	kubernetesFile = root + "/deploy/kubernetes.yaml"
	operations     = root + "/docs/operations.md"
)

// manifest is what kubernetes.yaml has.
type manifest struct {
	set      appsv1.StatefulSet
	services map[string]corev1.Service
	budget   policyv1.PodDisruptionBudget
	policy   networkingv1.NetworkPolicy
}

// decode reads kubernetes.yaml into the types of its API: an unknown or a doubled field
// is an error, as kubectl --validate=strict has it.
func decode(t *testing.T, text []byte) (manifest, error) {
	t.Helper()
	m := manifest{services: make(map[string]corev1.Service)}
	for _, doc := range bytes.Split(text, []byte("\n---\n")) {
		var kind metav1.TypeMeta
		if err := yaml.Unmarshal(doc, &kind); err != nil {
			return m, err
		}
		var err error
		switch kind.APIVersion + " " + kind.Kind {
		case "apps/v1 StatefulSet":
			err = yaml.UnmarshalStrict(doc, &m.set)
		case "v1 Service":
			var s corev1.Service
			err = yaml.UnmarshalStrict(doc, &s)
			m.services[s.Name] = s
		case "policy/v1 PodDisruptionBudget":
			err = yaml.UnmarshalStrict(doc, &m.budget)
		case "networking.k8s.io/v1 NetworkPolicy":
			err = yaml.UnmarshalStrict(doc, &m.policy)
		default:
			err = fmt.Errorf("nothing here checks a %s %s", kind.APIVersion, kind.Kind)
		}
		if err != nil {
			return m, err
		}
	}
	return m, nil
}

func decoded(t *testing.T) manifest {
	t.Helper()
	m, err := decode(t, read(t, kubernetesFile))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestAMisspeltFieldOfTheManifestIsSeen(t *testing.T) {
	t.Parallel()
	text := bytes.Replace(read(t, kubernetesFile), []byte("minReadySeconds"), []byte("minReadySecond"), 1)
	if _, err := decode(t, text); err == nil || !strings.Contains(err.Error(), "minReadySecond") {
		t.Errorf("the error is %v", err)
	}
}

// named is a file for kube-score.
type named struct {
	io.Reader
	name string
}

func (n named) Name() string { return n.name }

func TestKubeScoreHasNothingToSay(t *testing.T) {
	t.Parallel()
	if found := scored(t, read(t, kubernetesFile)); len(found) > 0 {
		t.Error(strings.Join(found, "\n"))
	}
	// It would say something.
	text := bytes.Replace(read(t, kubernetesFile), []byte("readOnlyRootFilesystem: true"), []byte("readOnlyRootFilesystem: false"), 1)
	if found := scored(t, text); len(found) == 0 {
		t.Error("a file system that can be written to is not found")
	}
}

func scored(t *testing.T, text []byte) (found []string) {
	t.Helper()
	p, err := parser.New(&parser.Config{})
	if err != nil {
		t.Fatal(err)
	}
	objects, err := p.ParseFiles([]ks.NamedReader{named{bytes.NewReader(text), "kubernetes.yaml"}})
	if err != nil {
		t.Fatal(err)
	}
	settings := &config.RunConfiguration{
		KubernetesVersion: config.Semver{Major: 1, Minor: 27},
		// kubernetes.yaml says why there is none.
		IgnoreContainerCpuLimitRequirement: true,
	}
	card, err := score.Score(objects, score.RegisterAllChecks(objects, &checks.Config{}, settings), settings)
	if err != nil {
		t.Fatal(err)
	}
	for _, object := range *card {
		for _, check := range object.Checks {
			if check.Skipped || check.Grade > scorecard.GradeWarning {
				continue
			}
			for _, c := range check.Comments {
				found = append(found, fmt.Sprintf("%s: %s: %s %s: %s", object.HumanFriendlyRef(), check.Check.Name, c.Path, c.Summary, c.Description))
			}
		}
	}
	return found
}

func TestTheManifestFitsTheImage(t *testing.T) {
	t.Parallel()
	m, img := decoded(t), imageOf(t, stage(t, ""))
	pod := m.set.Spec.Template.Spec
	node := pod.Containers[0]
	if got := fmt.Sprintf("%d:%d", *pod.SecurityContext.RunAsUser, *pod.SecurityContext.RunAsGroup); got != img.user {
		t.Errorf("the pod runs as %s, the image's user is %s", got, img.user)
	}
	if path, mode := secretOf(t, pod, "OCNODE_HTTP__TOKEN"); mode != 0o440 || path != "/http/token" {
		t.Errorf("the token is at %s with mode %#o", path, mode)
	}
	if node.VolumeMounts[0].MountPath != img.volumes[0] || node.VolumeMounts[0].Name != m.set.Spec.VolumeClaimTemplates[0].Name {
		t.Errorf("%+v is mounted, data.dir is %s", node.VolumeMounts, img.volumes[0])
	}
	// By default each mount makes identity.key 0660, and the node refuses it.
	if p := pod.SecurityContext.FSGroupChangePolicy; p == nil || *p != corev1.FSGroupChangeOnRootMismatch {
		t.Errorf("fsGroupChangePolicy is %v", p)
	}
	if on := pod.EnableServiceLinks; on == nil || *on {
		t.Error("a Service's variables come into the pod")
	}
	if s, ok := m.services[m.set.Spec.ServiceName]; !ok || s.Spec.ClusterIP != corev1.ClusterIPNone || !s.Spec.PublishNotReadyAddresses {
		t.Errorf("the pods' names come from %+v", s)
	}
	limit := ""
	for _, e := range node.Env {
		if e.Name == "GOMEMLIMIT" {
			limit = e.Value
		}
	}
	if max := node.Resources.Limits.Memory().Value(); !nineTenths(t, limit, max) {
		t.Errorf("the node sizes itself to %s, and may have %d", limit, max)
	}
	ports := make(map[string]bool)
	for _, p := range node.Ports {
		ports[p.Name] = true
	}
	for _, s := range m.services {
		for _, p := range s.Spec.Ports {
			if !ports[p.TargetPort.StrVal] {
				t.Errorf("Service %s leads to port %q, which the pod has not", s.Name, p.TargetPort.StrVal)
			}
		}
	}
	for _, rule := range m.policy.Spec.Ingress {
		for _, p := range rule.Ports {
			if !ports[p.Port.StrVal] {
				t.Errorf("the NetworkPolicy opens port %q, which the pod has not", p.Port.StrVal)
			}
			if open := len(rule.From) == 0; open == (p.Port.StrVal == "http") {
				t.Errorf("port %s is open to everyone: %v", p.Port.StrVal, open)
			}
		}
	}
}

// secretOf returns the path that a variable names, and the mode of the Secret's key there.
func secretOf(t *testing.T, pod corev1.PodSpec, variable string) (path string, mode int32) {
	t.Helper()
	for _, e := range pod.Containers[0].Env {
		if e.Name == variable {
			path = e.Value
		}
	}
	for _, mount := range pod.Containers[0].VolumeMounts {
		for _, v := range pod.Volumes {
			if mount.Name == v.Name && mount.MountPath == filepath.Dir(path) && v.Secret != nil && mount.ReadOnly {
				return path, *v.Secret.DefaultMode
			}
		}
	}
	t.Fatalf("nothing is mounted where %s says, %q", variable, path)
	return "", 0
}

// nineTenths reports whether a GOMEMLIMIT is that of limit, within a twentieth.
func nineTenths(t *testing.T, text string, limit int64) bool {
	t.Helper()
	q, err := resource.ParseQuantity(strings.TrimSuffix(text, "B"))
	if err != nil {
		t.Errorf("GOMEMLIMIT %q: %v", text, err)
		return false
	}
	return math.Abs(float64(q.Value())/float64(limit)-0.9) < 0.05*0.9
}

// The pods of the StatefulSet, each a process with its own environment and volume, are
// joined by the command in operations.md and by a restart, and find each other.
func TestThePodsAreANetwork(t *testing.T) {
	t.Parallel()
	m, img := decoded(t), imageOf(t, stage(t, ""))
	node := m.set.Spec.Template.Spec.Containers[0]
	const namespace = "default"
	replicas := int(*m.set.Spec.Replicas)
	var here []string
	ports, apis, dirs := make([]int, replicas), make([]int, replicas), make([]string, replicas)
	// The Secret as the manifest's first lines have it made, and as it is mounted.
	secrets := t.TempDir()
	const token = "0123456789abcdef0123456789abcdef"
	if !bytes.Contains(read(t, kubernetesFile), []byte("kubectl create secret generic ocnode-http --from-literal=token=")) {
		t.Error("the manifest does not say how to make the Secret")
	}
	path, mode := secretOf(t, m.set.Spec.Template.Spec, "OCNODE_HTTP__TOKEN")
	if err := os.WriteFile(filepath.Join(secrets, filepath.Base(path)), []byte(token), os.FileMode(mode)); err != nil {
		t.Fatal(err)
	}
	for i := range replicas {
		ports[i], apis[i], dirs[i] = ocnodetest.UnusedPort(t), ocnodetest.UnusedPort(t), t.TempDir()
		for _, name := range []string{fmt.Sprintf("/dns/ocnode-%d.ocnode.%s.svc", i, namespace), fmt.Sprintf("/dns/ocnode-%d.ocnode", i)} {
			here = append(here, name+"/tcp/4101", fmt.Sprint("/ip4/127.0.0.1/tcp/", ports[i]), name+"/udp/4101", fmt.Sprint("/ip4/127.0.0.1/udp/", ports[i]))
		}
	}
	start := func(i int, network map[string]string) *container {
		env := make(map[string]string)
		for k, v := range img.env {
			env[k] = v
		}
		known := map[string]string{}
		for _, e := range node.Env {
			value := e.Value
			switch from := e.ValueFrom; {
			case from == nil:
			case from.FieldRef != nil && from.FieldRef.FieldPath == "metadata.name":
				value = fmt.Sprint("ocnode-", i)
			case from.FieldRef != nil && from.FieldRef.FieldPath == "metadata.namespace":
				value = namespace
			case from.ConfigMapKeyRef != nil && from.ConfigMapKeyRef.Name == "ocnode-network" && *from.ConfigMapKeyRef.Optional:
				var ok bool
				if value, ok = network[from.ConfigMapKeyRef.Key]; !ok {
					continue
				}
			default:
				t.Fatalf("nothing here knows where %s is from", e.Name)
			}
			for name, v := range known { // those before it, as Kubernetes has it
				value = strings.ReplaceAll(value, "$("+name+")", v)
			}
			known[e.Name], env[e.Name] = value, value
		}
		for k, v := range env {
			env[k] = under(map[string]string{img.volumes[0]: dirs[i], filepath.Dir(path): secrets}, v)
		}
		env = replace(env, append(here, ":4180", fmt.Sprint("127.0.0.1:", apis[i]))...)
		env["OCNODE_HOST__LISTEN"] = listen(ports[i])
		c := run(t, fmt.Sprint("ocnode-", i), t.TempDir(), env, node.Args...)
		for _, probe := range []*corev1.Probe{node.StartupProbe, node.ReadinessProbe, node.LivenessProbe} {
			ocnodetest.Eventually(t, c.name+" answers "+probe.HTTPGet.Path, func() bool {
				resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d%s", apis[i], probe.HTTPGet.Path))
				if err != nil {
					return false
				}
				_ = resp.Body.Close()
				return resp.StatusCode == http.StatusOK
			})
		}
		return c
	}
	// asked asks a pod as a client of the Service does.
	asked := func(i int, host, token string) int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/api/v1/status", apis[i]), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	grace := time.Duration(*m.set.Spec.Template.Spec.TerminationGracePeriodSeconds) * time.Second

	pods := make([]*container, replicas)
	for i := range pods {
		pods[i] = start(i, nil)
	}
	for _, host := range []string{"ocnode-http:4180", "ocnode-http." + namespace + ".svc.cluster.local:4180"} {
		if with, without := asked(0, host, token), asked(0, host, ""); with != http.StatusOK || without != http.StatusUnauthorized {
			t.Errorf("%s answers %d with the token, %d without", host, with, without)
		}
	}
	if got := asked(0, "evil.example", token); got != http.StatusForbidden {
		t.Errorf("by a name that is not its own it answers %d", got)
	}
	bootstrap := toldOfEachOther(t, pods)
	network := map[string]string{"bootstrap": bootstrap}
	for i := range slices.Backward(pods) {
		pods[i].stop(grace)
		pods[i] = start(i, network)
	}
	one, _, _ := strings.Cut(bootstrap, ",")
	if !strings.HasSuffix(one, pods[0].peerID()) {
		t.Fatalf("the first of %q is not ocnode-0, %s", bootstrap, pods[0].peerID())
	}
	indexer := run(t, "an indexer", t.TempDir(), map[string]string{
		"OCNODE_DATA__DIR": t.TempDir(), "OCNODE_MODULES": "indexer", "OCNODE_HOST__LISTEN": "/ip4/127.0.0.1/tcp/0",
		"OCNODE_INDEXER__NATIVES": strings.NewReplacer(here...).Replace(one),
	})
	for _, pod := range pods {
		if got := pod.lists(); got.PeerID != indexer.peerID() || got.Via != pods[0].peerID() {
			t.Errorf("%s lists %+v", pod.name, got)
		}
	}
}

// toldOfEachOther runs the command of operations.md with a kubectl that knows these pods,
// and returns what it would have them told.
func toldOfEachOther(t *testing.T, pods []*container) string {
	t.Helper()
	block := regexp.MustCompile("(?s)```sh\n([^`]*kubectl create configmap ocnode-network.*?)```").FindSubmatch(read(t, operations))
	if block == nil {
		t.Fatal("operations.md does not say how to tell the pods of each other")
	}
	dir := t.TempDir()
	script := "#!/bin/sh\ncase \"$1 $2\" in\n"
	for _, pod := range pods {
		script += fmt.Sprintf("'exec %s') [ \"$3 $4 $5\" = '-- /ocnode id' ] && echo %s ;;\n", pod.name, pod.peerID())
	}
	script += `'create configmap') [ "$5 $6 $7" = '--dry-run=client -o yaml' ] && echo "$4" ;;
'apply -f') sed 's/--from-literal=bootstrap=//' >"$0.bootstrap" ;;
'rollout restart') echo "$3" >"$0.restarted" ;;
'rollout status') ;;
*) echo "$*: not expected" >&2; exit 1 ;;
esac
`
	kubectl := filepath.Join(dir, "kubectl")
	if err := os.WriteFile(kubectl, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/bin/sh", "-euc", string(block[1]))
	cmd.Env, cmd.Dir = []string{"PATH=" + dir + ":" + os.Getenv("PATH")}, dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", block[1], err, out)
	}
	if got := strings.TrimSpace(string(read(t, kubectl+".restarted"))); got != "statefulset/ocnode" {
		t.Errorf("it restarts %q", got)
	}
	return strings.TrimSpace(string(read(t, kubectl+".bootstrap")))
}
