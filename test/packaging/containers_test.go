//go:build containers

package packaging

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"tlsd/internal/testcert"
	"tlsd/internal/testd"
	"tlsd/internal/testkit"
)

// The test builds the image from the Containerfile, and runs a daemon and scripts in containers of
// their own. It takes paths and user IDs from sidecar.yaml, but does not run Kubernetes. It uses no
// registry: the two base images come from a folder with a Debian (see debian), and the builder has
// this machine's Go. So it does not show that a registry has the images that the Containerfile
// names.

// A podman is a set of namespaces in which the program podman has storage, processes and mounts of
// its own. The namespaces end with the test.
type podman struct {
	t    *testing.T
	pid  int    // of the first process in the namespaces
	dir  string // for storage and other files
	conf string // podman's configuration file
}

// With these settings podman needs neither cgroups of its own nor the right to raise limits.
const containersConf = `[containers]
cgroups = "disabled"
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
`

func newPodman(t *testing.T) *podman {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: containers of this test need root")
	}
	for _, tool := range []string{"podman", "crun", "unshare", "nsenter"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("SKIPPED: %v", err)
		}
	}
	p := &podman{t: t, dir: testkit.Dir(t)} // podman wants a short path
	p.conf = filepath.Join(p.dir, "containers.conf")
	if err := os.WriteFile(p.conf, []byte(containersConf), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(p.dir+"/storage", 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("unshare", "--pid", "--fork", "--kill-child", "--mount", "--cgroup",
		"--ipc", "--uts", "sh", "testdata/podman.sh", p.dir+"/storage")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	started, ended := make(chan error, 1), make(chan error, 1)
	// Pdeathsig needs a thread that lives as long as the child (see boot in machine_test.go).
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_, err = cmd.Process.Wait()
			ended <- err
		}
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-ended
	})
	if line, _ := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Skipf("SKIPPED: podman cannot work on this machine: %q", line)
	}
	if p.pid = childOf(cmd.Process.Pid); p.pid == 0 {
		t.Fatal("unshare has no child")
	}
	return p
}

// until waits until a condition holds.
func (p *podman) until(what string, ok func() bool) {
	p.t.Helper()
	testkit.Until(p.t, what, ok)
}

// command returns a podman command that runs in the namespaces.
func (p *podman) command(args ...string) *exec.Cmd {
	enter := []string{"-t", strconv.Itoa(p.pid), "-m", "-p", "-C", "-i", "-u", "--", "podman",
		"--root", p.dir + "/storage", "--runroot", p.dir + "/run", "--tmpdir",
		p.dir + "/tmp", "--storage-driver", "overlay", "--runtime", "crun"}
	cmd := exec.Command("nsenter", append(enter, args...)...)
	cmd.Env = append(cmd.Environ(), "CONTAINERS_CONF="+p.conf)
	return cmd
}

// run runs a command of podman that must end with status 0, and returns its output.
func (p *podman) run(args ...string) string {
	p.t.Helper()
	return succeed(p.t, p.command(args...))
}

// fails runs a command of podman that must not end with status 0, and whose output must contain
// want.
func (p *podman) fails(want string, args ...string) {
	p.t.Helper()
	out, err := p.command(args...).CombinedOutput()
	if err == nil || !strings.Contains(string(out), want) {
		p.t.Errorf("podman %v ends with %v; want a failure, and %q in its output:\n%s",
			args, err, want, out)
	}
}

// image imports all files below the folder root as an image.
func (p *podman) image(name, root string) {
	p.t.Helper()
	tar := exec.Command("tar", "-C", root, "--one-file-system", "-c", ".")
	var stderr bytes.Buffer
	tar.Stderr = &stderr
	out, err := tar.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	load := p.command("import", "-", name)
	load.Stdin = out
	if err := tar.Start(); err != nil {
		p.t.Fatal(err)
	}
	text, err := load.CombinedOutput()
	out.Close() // so that tar ends, even if the import has failed
	if bad := tar.Wait(); err != nil || bad != nil {
		p.t.Fatalf("podman import ends with %v, and tar with %v\n%s%s", err, bad, text,
			&stderr)
	}
}

// build builds the image of the Containerfile from a fresh checkout.
func (p *podman) build() {
	p.t.Helper()
	p.image("localhost/base", debian(p.t))
	builder := filepath.Join(p.dir, "Builder")
	text := "FROM localhost/base\nENV PATH=/usr/local/go/bin:/usr/sbin:/usr/bin:/sbin:/bin\n" +
		"ENV GOMODCACHE=/go/mod GOCACHE=/go/build\n" +
		"RUN apt-get update && apt-get install -y --no-install-recommends " +
		"gcc libc6-dev make git curl\n"
	if err := os.WriteFile(builder, []byte(text), 0o644); err != nil {
		p.t.Fatal(err)
	}
	// The steps of the build run with chroot, not with crun. For its device rules, crun raises
	// a limit, and not every machine allows that.
	p.run("build", "--isolation", "chroot", "-f", builder, "-t", "localhost/builder",
		p.dir+"/empty")
	source := copyOfSource(p.t, "source")
	for _, args := range [][]string{{"init", "-q"}, {"add", "."}, {"-c", "user.name=t", "-c",
		"user.email=t@example.invalid", "commit", "-q", "-m", "t"}} {
		cmd := exec.Command("git", args...)
		cmd.Dir = source
		succeed(p.t, cmd)
	}
	// A file that was built on another machine must not get into the image.
	if err := os.MkdirAll(source+"/bin", 0o755); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(source+"/bin/TlsPlugin.so", []byte("foreign"), 0o644); err != nil {
		p.t.Fatal(err)
	}
	env := func(name string) string {
		return strings.TrimSpace(succeed(p.t, exec.Command("go", "env", name)))
	}
	p.run("build", "--isolation", "chroot", "-f", source+"/packaging/container/Containerfile",
		"--build-arg", "BUILDER=localhost/builder", "--build-arg", "BASE=localhost/base",
		"-v", env("GOROOT")+":/usr/local/go:ro", "-v", env("GOMODCACHE")+":/go/mod",
		"-v", env("GOCACHE")+":/go/build", "-t", "localhost/tlsd", source)
}

// sidecar returns the part of sidecar.yaml that the first group of the expression matches.
func sidecar(t *testing.T, expression string) string {
	t.Helper()
	m := regexp.MustCompile(expression).FindStringSubmatch(
		readFile(t, top+"/packaging/container/sidecar.yaml"))
	if m == nil {
		t.Fatalf("sidecar.yaml has no %s", expression)
	}
	return m[1]
}

// A server's script and a client's script talk TLS through a daemon in a third container. The
// containers are set up as in sidecar.yaml. If a container has another user or lacks the
// certificates, the calls fail as docs/operations.md says.
func TestContainersOfADaemonAndItsScripts(t *testing.T) {
	p := newPodman(t)
	if err := os.MkdirAll(p.dir+"/empty", 0o755); err != nil {
		t.Fatal(err)
	}
	p.build()

	socket := sidecar(t, `name: TLSD_SOCKET\n\s+value: (\S+)`)
	folders := regexp.MustCompile(`mountPath: (\S+)`).FindAllStringSubmatch(
		readFile(t, top+"/packaging/container/sidecar.yaml"), 2)
	user, _ := strconv.Atoi(sidecar(t, `runAsUser: (\d+)`))
	sockets, certificates := p.dir+"/sockets", p.dir+"/certificates"
	ca := testcert.NewCA(t, "test")
	cert := ca.Issue(t, testcert.Leaf{CN: "localhost", DNS: []string{"localhost"}})
	for dir, files := range map[string][]string{sockets: nil,
		certificates: {ca.File, cert.CertFile, cert.KeyFile}} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for i, file := range files {
			path := filepath.Join(dir, []string{"ca.pem", "cert.pem", "key.pem"}[i])
			if err := os.WriteFile(path, []byte(readFile(t, file)), 0o400); err != nil {
				t.Fatal(err)
			}
			if err := os.Chown(path, user, user); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chown(dir, user, user); err != nil {
			t.Fatal(err)
		}
	}
	confined := []string{"--read-only", "--cap-drop", "all", "--security-opt",
		"no-new-privileges"}
	shared := []string{"-v", sockets + ":" + folders[0][1]}
	files := []string{"-v", certificates + ":" + folders[1][1] + ":ro"}
	// script returns a command that runs a script as a user, in a container of its own. The
	// container has tlsd's image, because this image has the plugin.
	script := func(uid int, files []string, name string, args ...string) []string {
		all := append([]string{"run", "--rm", "--network", "container:tlsd", "--user",
			fmt.Sprintf("%d:%d", uid, uid), "-e", "TLSD_SOCKET=" + socket, "-e",
			"TLSD_AUTOSTART=0", "-v", p.program() + ":/opt/program:ro"}, confined...)
		all = append(append(all, shared...), files...)
		return append(append(all, "--entrypoint", "/opt/program/domhost", "localhost/tlsd",
			"-D", "PORT=8443"), append(args, "/opt/program/"+name)...)
	}
	folder := folders[1][1]
	server := []string{"-D", `CERT="` + folder + `/cert.pem"`, "-D",
		`KEY="` + folder + `/key.pem"`, "-D", "COUNT=1"}
	daemon := func(files []string, more ...string) {
		p.run(append(append(append(append([]string{"run", "-d", "--name", "tlsd",
			"--network", "none"}, confined...), shared...), files...),
			append([]string{"localhost/tlsd"}, more...)...)...)
		p.until("tlsshim status succeeds in tlsd's container", func() bool {
			return p.command("exec", "tlsd", "/usr/bin/tlsshim", "status").Run() == nil
		})
	}

	daemon(files)
	if got := p.run("exec", "tlsd", "/usr/bin/id", "-u"); got != fmt.Sprintln(user) {
		t.Errorf("the daemon runs as user %s, want %d", got, user)
	}
	if info := p.run("exec", "tlsd", "/usr/bin/tlsshim", "call", "Info"); !allOn(info) {
		t.Errorf("in the container, not every confinement of the workers is on: %s", info)
	}
	serves := p.command(script(user, files, "demo-server.dom", server...)...)
	var out bytes.Buffer
	serves.Stdout, serves.Stderr = &out, &out
	if err := serves.Start(); err != nil {
		t.Fatal(err)
	}
	p.until("the server's script listens on port 8443", func() bool {
		out, _ := p.command("exec", "tlsd", "/bin/cat", "/proc/net/tcp").Output()
		return strings.Contains(string(out), ":20FB 00000000:0000 0A")
	})
	if page := p.run(script(user, files, "demo-client.dom", "-D",
		`CA="`+folder+`/ca.pem"`)...); !strings.Contains(page, "Hello from a DominScript server") {
		t.Errorf("the client's script prints %s; want the server's page", page)
	}
	if err := serves.Wait(); err != nil {
		t.Errorf("the server's script fails: %v\n%s", err, &out)
	}

	// The container of the script and the container of the daemon must have the same user and
	// the same certificates (docs/operations.md).
	p.fails("ermission denied", script(user+1, files, "demo-server.dom", server...)...)
	p.run("stop", "tlsd")
	if status := p.run("wait", "tlsd"); status != "0\n" {
		t.Errorf("after podman stop, the exit status of tlsd is %s, want 0", status)
	}
	p.run("rm", "tlsd")
	daemon(nil)
	p.fails("no such file or directory", script(user, files, "demo-server.dom", server...)...)
	p.run("rm", "-f", "tlsd")

	// A script may have another user than the daemon, if tlsd has the script's user in
	// allow-uid, and client.conf has the daemon's user in trusted-users.
	daemon(files, "--allow-uid", strconv.Itoa(user+1))
	conf := p.dir + "/client.conf"
	if err := os.WriteFile(conf, []byte(fmt.Sprintf("trusted-users = %d\n", user)),
		0o644); err != nil {
		t.Fatal(err)
	}
	p.fails("and not in trusted-users", script(user+1, files, "demo-server.dom", server...)...)
	trusts := append([]string{"-v", conf + ":/etc/tlsd/client.conf:ro"}, files...)
	if got := p.run(script(user+1, trusts, "script.dom")...); got != "openssl\n" {
		t.Errorf("with trusted-users and allow-uid, the script prints %s, want openssl",
			got)
	}
}

// program returns a folder with domhost, and with scripts that load the image's plugin.
func (p *podman) program() string {
	p.t.Helper()
	dir := p.dir + "/program"
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		p.t.Fatal(err)
	}
	if err := testd.WriteProgram(dir+"/domhost", []byte(readFile(p.t,
		filepath.Join(bin, "domhost")))); err != nil {
		p.t.Fatal(err)
	}
	const placed = `plugin "/usr/lib/tlsd/TlsPlugin";`
	for name, text := range map[string]string{
		"demo-server.dom": readFile(p.t, top+"/examples/demo-server.dom"),
		"demo-client.dom": readFile(p.t, top+"/examples/demo-client.dom"),
		"script.dom":      placed + "\nvoid main() { printf(\"%s\\n\", tls.Backend()); }\n",
	} {
		text = strings.Replace(text, `plugin "../plugins/tls/TlsPlugin";`, placed, 1)
		if !strings.Contains(text, placed) {
			p.t.Fatalf("%s loads no plugin", name)
		}
		if err := os.WriteFile(dir+"/"+name, []byte(text), 0o644); err != nil {
			p.t.Fatal(err)
		}
	}
	return dir
}
