# SPDX-License-Identifier: Apache-2.0
"""
Cases of pods.py that plant faults in what is around a pod: names, its node's network, its memory.
"""
import re
import signal
import time

from cluster import DNS, wait_until
from mpi import LAUNCHED
from pods import AGENT, LONG, RENDEZVOUS, Case, expect, says

SERVFAIL, NXDOMAIN, REFUSED = 2, 3, 5


# ---- names -----------------------------------------------------------------------------------------


def names_fail(build, kind, code):
    """Every name is answered with a failure for some seconds; then the records are there."""
    with Case(build, kind) as case:
        case.cluster.fail_names(code)
        pods = [pod.start() for pod in case.pods]
        answer = int(case.cluster.ask(pods[0].fqdn))
        expect(f"the DNS server says {code}, not {answer}", answer == code, pods)
        time.sleep(3)
        expect("all wait", all(pod.runs() for pod in pods), pods)
        case.cluster.fail_names(None)
        case.finish()


def servfail(build, kind):
    names_fail(build, kind, SERVFAIL)


def nxdomain(build, kind):
    names_fail(build, kind, NXDOMAIN)


def refused(build, kind):
    names_fail(build, kind, REFUSED)


def dns_restarts(build, kind):
    """The DNS server dies while the world forms, and comes back."""
    with Case(build, kind) as case:
        case.pods[1].start()
        time.sleep(1)
        case.cluster.stop_dns()
        for pod in case.pods:
            if pod is not case.pods[1]:
                pod.start()
        time.sleep(2)
        case.cluster.start_dns()
        case.finish()


def stale(build, kind):
    """The name that is looked for means an address where nobody is, and later also the right one; then a record goes and comes."""
    if kind == "mpijob-ssh":
        return stale_for_ssh(build, kind)
    with Case(build, kind) as case:
        nobody = case.cluster.next_address()
        # Whom others look for: the workers, where a launcher does it.
        wanted = case.pods[1] if kind in LAUNCHED else case.pods[0]
        for pod in case.pods:
            pod.start(publish=pod is not wanted)
        case.cluster.publish(wanted, [nobody])
        time.sleep(2)
        case.cluster.withdraw(wanted)
        time.sleep(1)
        expect("all wait", all(pod.runs() for pod in case.pods), case.pods)
        case.cluster.publish(wanted, [nobody, wanted.address])
        case.finish()


def stale_for_ssh(build, kind):
    """ssh asks once, and mpirun waits for nobody: its launcher ends, with words, and the next one finds the worker behind the right address."""
    with Case(build, kind) as case:
        launcher, wanted, *others = case.pods
        for pod in (wanted, *others):
            pod.start(publish=pod is not wanted)
        nobody = case.cluster.next_address()
        case.cluster.publish(wanted, [nobody])
        launcher.start()
        code = launcher.wait(90)  # ten attempts of ssh (ConnectionAttempts, which the operator sets) of some seconds each
        expect(f"code {code}", code == 255, case.pods)
        says([launcher], rf"connect to host {wanted.hostname}\S* port 2222: No route to host", 1)
        case.cluster.publish(wanted, [nobody, wanted.address])
        case.wait_ready()
        launcher.start()
        case.finish(60)


def other_job(build, kind):
    """The name means, at first, a pod of another job, which answers."""
    with Case(build, kind) as case:
        others = case.make()
        wanted = 1 if kind in LAUNCHED else 0
        other = others[wanted]
        other.name += "-other"
        for path in other.files:
            if path.endswith(("/token", "/id_rsa")):
                other.files[path] = ("the secret of another job", other.files[path][1])
        other.environment["KOLO_JOB"] = "another"
        other.start(publish=False)
        for i, pod in enumerate(case.pods):
            pod.start(publish=i != wanted)
        case.cluster.publish(case.pods[wanted], [other.address])
        time.sleep(3)
        expect("all wait", all(pod.runs() for pod in case.pods if pod.restarts == 0), [*case.pods, other])
        case.cluster.publish(case.pods[wanted], [other.address, case.pods[wanted].address])
        case.finish()


# ---- hostNetwork -----------------------------------------------------------------------------------


def on_one_node(pods):
    """The pods have the network and the name of one node."""
    for pod in pods:
        pod.node = "node-of-all"
        pod.environment["POD_NAME"] = pod.name
        pod.beside = pods[0] if pod is not pods[0] else None


def same_node(build, kind):
    """All pods of a job on one node. Two agents there want one port: the second says so, and the job does not come up."""
    with Case(build, kind, environment={"KOLO_INIT_TIMEOUT": "6" if kind in LAUNCHED else "30"}) as case:
        on_one_node(case.pods)
        for pod in case.pods:
            pod.start()
            if pod.ready_port and pod is not case.pods[2]:
                wait_until(lambda p=pod: p.listens(p.ready_port), 10, f"{pod.name} ready")
        if kind not in LAUNCHED:
            return case.finish()
        second = case.pods[2]
        expect("the second agent ends", second.wait(10) not in (0, None), case.pods)
        says([second], r"cannot listen on all addresses \(\*\) port 7701: Address already in use", 1)
        expect("its last word", "port 7701: Address already in use" in second.termination(), case.pods)


def two_jobs(build, kind):
    """Two jobs with hostNetwork on one node: the second finds the port taken and says by what it may be."""
    with Case(build, kind, command=LONG, environment={"KOLO_INIT_TIMEOUT": "6"}) as case:
        others = case.make()
        for other in others:
            other.name += "-other"
        on_one_node([*case.pods, *others])
        case.pods[0].start()
        if kind in LAUNCHED:
            case.pods[1].start()
        first = case.pods[1 if kind in LAUNCHED else 0]
        wait_until(lambda: first.listens(AGENT if kind in LAUNCHED else RENDEZVOUS), 10, f"{first.name} that listens")
        other = others[1 if kind in LAUNCHED else 0].start(publish=False)
        code = other.wait(30)
        expect(f"code {code}", code not in (0, None), [*case.pods, other])
        says([other], r"port 770[01].*in use", 1)


# ---- policies --------------------------------------------------------------------------------------


def admitting_only(ports):
    """A NetworkPolicy of the namespace that lets others reach a pod at these TCP ports only."""
    return f"""
        table inet netpol {{
            chain in {{
                type filter hook input priority 0; policy drop;
                ct state established,related accept
                iif lo accept
                udp sport 53 accept
                tcp dport {{ {ports} }} accept
            }}
        }}"""


def blocked_data(build, kind):
    """A NetworkPolicy that opens the ports which the manifest names; data have none with a name. A launcher's rendezvous neither, nor mpirun's."""
    for blocked in ("workers", "launcher") if kind in LAUNCHED else ("all",):
        with Case(build, kind, environment={"KOLO_INIT_TIMEOUT": "6" if blocked == "launcher" else "30", "KOLO_TIMEOUT": "10"}) as case:
            victims = {"all": case.pods, "workers": case.pods[1:], "launcher": case.pods[:1]}[blocked]
            for pod in victims:
                pod.policy = admitting_only("2222, 7700, 7701")
            if kind == "mpijob-ssh":
                command = case.pods[0].command
                command[command.index("-x"):0] = ["-x", "KOLO_INIT_TIMEOUT=8"]
            case.start()
            codes = [pod.wait(40 if (kind, blocked) != ("mpijob-ssh", "launcher") else 250) for pod in case.ranks]
            if kind == "mpijob-ssh" and blocked == "launcher":
                expect(f"codes {codes}", codes == [1], case.pods)
                says(case.pods[:1], r"Remote host: +train-launcher\s+This is usually caused by a firewall", 1)
                continue
            expect(f"codes {codes}", codes == [75] * len(codes), case.pods)
            for pod in case.ranks:
                words = "did not tell where to meet .*NetworkPolicy" if kind == "mpijob-ssh" else \
                    r"rank [0-2] \(host train-.*[0-2]\) found no rendezvous within 6 s; .*no answer.*NetworkPolicy" if blocked == "launcher" else \
                    r"rank [12] \(train-.*[12]\) could not reach rank [01] \(train-.*[01]\) at 10\.244\.1\.\d+:\d+ within 5 s: no answer.*all TCP ports.*NetworkPolicy"
                expect(f"both ends and a remedy in {pod.termination()}", re.search(words, pod.termination()), case.pods)


# ---- late ------------------------------------------------------------------------------------------


def a_minute_late(build, kind):
    """The last pod comes after 60 s. mpirun waits for nobody: there the launcher is made when that pod is ready."""
    with Case(build, kind, environment={"KOLO_INIT_TIMEOUT": "120"}) as case:
        early = case.pods[1:-1] if kind == "mpijob-ssh" else case.pods[:-1]
        for pod in early:
            pod.start()
        time.sleep(60)
        expect("all wait", all(pod.runs() for pod in early), case.pods)
        expect("who is missing is said", kind == "mpijob-ssh" or re.search(r"waits for", case.pods[0].log()), case.pods)
        case.pods[-1].start()
        if case.pods[0] not in early:
            case.wait_ready()
            case.pods[0].start()
        case.finish()


def mpirun_again(build, kind):
    """mpirun waits for nobody: without a worker it ends with a code other than 0, and a new launcher finds it."""
    with Case(build, kind) as case:
        for pod in case.pods[1:-1]:
            pod.start()
        case.pods[0].start()
        expect("a code other than 0", case.pods[0].wait(40) != 0, case.pods)
        says(case.pods[:1], r"resolve hostname " + re.escape(case.pods[-1].hostname), 1)
        case.pods[-1].start()
        case.wait_ready()
        case.pods[0].start()
        case.finish()


def fewer_hosts(build, kind):
    """The operator's hostfile has one worker of two: mpirun makes no smaller world."""
    with Case(build, kind, workers=2) as case:
        hosts, mode = case.pods[0].files["/etc/mpi/hostfile"]
        case.pods[0].files["/etc/mpi/hostfile"] = (hosts.splitlines()[0].replace("slots=1", "slots=2") + "\n", mode)
        case.start()
        expect("a code other than 0", case.pods[0].wait(40) != 0, case.pods)
        says(case.pods[:1], "ppr", 1)


def wrong_size(build, kind):
    """A pod that is told of another world than its controller made: it says so, does not wait, and the others, which do, say the same."""
    with Case(build, kind, environment={"KOLO_INIT_TIMEOUT": "6"}) as case:
        victim = case.pods[-1]
        victim.environment["KOLO_WORLD_SIZE"] = "5"
        case.start()
        expect("65", victim.wait(10) == 65, case.pods)
        codes = [pod.wait(20) for pod in case.pods[:-1]]
        expect(f"codes of the others {codes}", set(codes) == {65}, case.pods)
        words = r"KOLO_WORLD_SIZE is 5, but 3 pods \(\w+\) with 1 rank each make 3"
        for pod in case.pods:
            who = "" if pod is victim else rf"missing: 2 \(pod {victim.hostname}.*refused was: rank 2 \(host {victim.hostname} at .*takes no part: "
            expect(f"the last word, {pod.termination()}", re.search(who + words, pod.termination()), case.pods)


def hostfile_alone(build, kind):
    """An operator whose variables kolo does not know: the hostfile is where it always is, here in MPICH's form."""
    with Case(build, kind, workers=2) as case:
        launcher = case.pods[0]
        launcher.environment.pop("OMPI_MCA_orte_default_hostfile")
        hosts, mode = launcher.files["/etc/mpi/hostfile"]
        launcher.files["/etc/mpi/hostfile"] = (hosts.replace(" slots=", ":"), mode)
        case.start()
        case.finish()
        expect("a rank in each worker", "over 2 ranks" in launcher.log(), case.pods)


# ---- memory ----------------------------------------------------------------------------------------


def oom(build, kind):
    """
    A container that takes more memory than its limit. With cgroup v2 kubelet sets memory.oom.group (since 1.28): the
    kernel kills all processes of the container at once. So does here, without a control group, SIGKILL to its process 1.
    """
    with Case(build, kind, command=LONG) as case:
        case.start()
        wait_until(lambda: any("step" in p.log() for p in case.pods), 40, "the first step")
        victim = case.pods[-1]
        victim.signal(signal.SIGKILL)
        expect("137", victim.wait(10) == 137, case.pods)
        rest = [pod for pod in case.ranks if pod is not victim]
        codes = [pod.wait(60) for pod in rest]
        if kind == "mpijob-ssh":  # its ranks' code, or that of what mpirun lost first: ssh, or its daemon
            expect(f"codes {codes}", codes[0] in (76, 205, 255), case.pods)
            return says(rest, victim.hostname, 1)
        expect(f"codes {codes}", set(codes) == {76}, case.pods)
        expect("the victim has no last word but its log's", victim.termination() == victim.log()[-2048:] != "", case.pods)
        for pod in rest:
            words = "was lost: its agent has gone" if kind in LAUNCHED else "(the connection broke|it closed the connection|closed its connection)"
            expect("the last word names the rank and its pod", re.search(rf"rank 2 .*{victim.hostname}.*{words}", pod.termination()), case.pods)
            expect("its host is not called lost", "with its host" not in pod.log(), case.pods)
