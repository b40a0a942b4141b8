package e2e

import (
	"context"
	"crypto/rand"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"uenv-ci.dev/internal/proc"
)

// slurmPrograms are what a cluster on this machine needs (packages slurmctld, slurmd,
// slurm-client and munge).
var slurmPrograms = []string{"munged", "slurmctld", "slurmd", "sbatch", "scontrol", "scancel", "squeue"}

// hasSlurm tells whether a cluster can be started: its daemons run jobs as other users,
// so it takes root.
func hasSlurm() error {
	for _, name := range slurmPrograms {
		if err := program(name, "packages slurmctld, slurmd, slurm-client and munge")(); err != nil {
			return err
		}
	}
	return isRoot()
}

// slurm starts a Slurm cluster of one node, nid001, in a directory of the script, and sets
// SLURM_CONF. Everything ends with the script.
func cmdSlurm(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 0, "slurm")
	// The socket's path has to be short.
	dir, err := os.MkdirTemp("", "slurm")
	ts.Check(err)
	ts.Defer(func() { os.RemoveAll(dir) })
	ts.Check(os.Chmod(dir, 0o755))
	key := filepath.Join(dir, "key")
	ts.Check(os.WriteFile(key, []byte(rand.Text()+rand.Text()), 0o400))
	at := func(name string) string { return filepath.Join(dir, name) }
	daemon(ts, dir, "munged", "--foreground", "--force", "--key-file="+key, "--socket="+at("munge"),
		"--pid-file="+at("munge.pid"), "--seed-file="+at("seed"), "--log-file="+at("munged.log"))
	conf := at("slurm.conf")
	ts.Check(os.WriteFile(conf, []byte(slurmConf(ts, dir)), 0o644))
	ts.Setenv("SLURM_CONF", conf)
	waitUntil(ts, dir, func() bool { _, err := os.Stat(at("munge")); return err == nil })
	daemon(ts, dir, "slurmctld", "-c", "-D", "-f", conf)
	daemon(ts, dir, "slurmd", "-c", "-D", "-f", conf, "-N", "nid001")
	waitUntil(ts, dir, func() bool {
		out, _ := proc.Cmd{Path: "sinfo", Args: []string{"-h", "-o", "%T"}, Env: []string{"SLURM_CONF=" + conf}}.Output(context.Background())
		return strings.TrimSpace(string(out)) == "idle"
	})
}

// slurmConf is the configuration of a cluster that schedules at once and has no
// accounting. Virtual nodes may claim more than the machine has.
func slurmConf(ts *testscript.TestScript, dir string) string {
	host, err := os.Hostname()
	ts.Check(err)
	host, _, _ = strings.Cut(host, ".")
	return fmt.Sprintf(`ClusterName=e2e
SlurmctldHost=%[2]s(127.0.0.1)
SlurmctldPort=%[3]d
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=%[1]s/munge
StateSaveLocation=%[1]s/state
SlurmdSpoolDir=%[1]s/%%n
SlurmctldPidFile=%[1]s/slurmctld.pid
SlurmdPidFile=%[1]s/%%n.pid
SlurmctldLogFile=%[1]s/slurmctld.log
SlurmdLogFile=%[1]s/%%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/builtin
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
KillWait=5
PropagateResourceLimits=NONE
SlurmdParameters=config_overrides
NodeName=nid001 NodeHostname=%[2]s NodeAddr=127.0.0.1 Port=%[4]d CPUs=4 RealMemory=1000
PartitionName=normal Nodes=nid001 Default=YES MaxTime=01:00:00
PartitionName=debug Nodes=nid001 MaxTime=00:10:00
`, dir, host, freePort(ts), freePort(ts))
}

// freePort returns a port that is free and stays so: below those that the system hands
// out to others.
func freePort(ts *testscript.TestScript) int {
	for range 100 {
		port := 20000 + mathrand.IntN(10000)
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			l.Close()
			return port
		}
	}
	ts.Fatalf("no port is free")
	return 0
}

// daemon runs a program till the script's end, or ours.
func daemon(ts *testscript.TestScript, dir, name string, args ...string) {
	log, err := os.Create(filepath.Join(dir, name+".out"))
	ts.Check(err)
	p, err := proc.Cmd{
		Path: name, Args: args, Dir: dir, Env: []string{"PATH=" + os.Getenv("PATH")}, Stdout: log, Stderr: log,
	}.Start(context.Background())
	ts.Check(err)
	ts.Defer(func() {
		_ = p.Signal(15)
		_ = p.Wait()
		log.Close()
	})
}

// waitUntil waits for a part of the cluster; if it does not come up, its logs say why.
func waitUntil(ts *testscript.TestScript, dir string, up func() bool) {
	for end := time.Now().Add(30 * time.Second); !up(); time.Sleep(50 * time.Millisecond) {
		if time.Now().Before(end) {
			continue
		}
		logs, _ := filepath.Glob(filepath.Join(dir, "*.[lo][ou][gt]"))
		for _, file := range logs {
			data, _ := os.ReadFile(file)
			ts.Logf("%s:\n%s", filepath.Base(file), data)
		}
		ts.Fatalf("the Slurm cluster does not come up")
	}
}
