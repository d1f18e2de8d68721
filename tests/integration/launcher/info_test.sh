#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# kolo info: JSON has what the text has, its keys are those of docs/INFO.md, and a job's rank 0 knows
# how many connections there are.
# shellcheck source=common.sh
source "$SOURCE_DIR/tests/integration/launcher/common.sh"

# ---- both texts
cat >check.py <<'END'
import json, re, sys

text, line, document = (open(name, encoding="utf-8", errors=how).read() for name, how in
                        zip(sys.argv[1:], ("replace", "strict", "strict")))
assert line.count("\n") == 1, "JSON is more than a line"
found = json.loads(line)
assert found.pop("schema") == 1
labels = [l[:10].strip() for l in text.splitlines() if l[0] != " "]
keys = [{"huge_pages": "huge pages", "rdma_ports": "rdma ports", "dev_shm": "/dev/shm"}.get(k, k) for k in found]
assert labels == keys, f"text tells {labels}, JSON {keys}"
rows = re.findall(r"^\| (`.*?) \| (.*) \|$", document, re.M)
known = {k: re.findall(r"`(\w+)`", what) for names, what in rows for k in re.findall(r"`(\w+)`", names)}
known["lanes"] = re.findall(r"`lanes\.(\w+)`", document) + ["job_fewest", "job_most"]
if set(known) - {"schema"} != set(found):
    sys.exit(f"docs/INFO.md has the keys {set(known)}, kolo info {set(found)}")
for key, value in found.items():
    for item in value if isinstance(value, list) else [value]:
        for inner in item:
            if inner not in known[key]:
                sys.exit(f"docs/INFO.md does not have {key}.{inner}")
END
both() { # what is set...
    env "$@" "$kolo" info >text || fail "kolo info ends with $? with $*"
    env "$@" "$kolo" info --json >line || fail "kolo info --json ends with $? with $*"
    python3 check.py text line "$SOURCE_DIR/docs/INFO.md" || fail "kolo info with $*"
}
value() { # expression of `found`, file
    python3 -c "import json; found = json.loads(open('$2', encoding='utf-8').read()); print($1)"
}
both KOLO_TIMEOUT=50
both KOLO_NET='=lo' KOLO_STREAMS=3 KOLO_TOKEN=secret-secret-secret KOLO_JOB=$'a"\xff'
expect "options" "(not shown) a\"$(printf '\xef\xbf\xbd')" \
    "$(PYTHONIOENCODING=utf-8 value "' '.join(o['value'] for o in found['options'] if o['name'] in ('KOLO_TOKEN', 'KOLO_JOB'))" line)"
grep -q secret-secret text line && fail "kolo info shows a token"
expect "lanes" "3 lo =lo" "$(value "'{streams} {interfaces} {net}'.format(**found['lanes'])" line)"
grep -q '^lanes      at least 3 (KOLO_STREAMS), through lo (KOLO_NET==lo)$' text || fail "lanes: $(grep ^lanes text)"
both KOLO_TIMEOT=1
expect "an option that is wrong" True "$(value "'KOLO_TIMEOUT' in found['options'][-1]['error']" line)"
both KOLO_TIMEOUT=50
cp line right
# Each wrong option is told in the words that a program ends with, and nothing else is wrong for that.
for wrong in KOLO_ENCRYPT=yes KOLO_STREAMS=9 KOLO_TRANSPORT=smoke KOLO_METRICS_PORT=none; do
    both $wrong KOLO_TIMEOUT=50
    code=0 && env $wrong "$kolo" run -n 1 -- "$kolo" info --plan 4 >/dev/null 2>err || code=$?
    [[ $code != 0 ]] || fail "kolo run goes with $wrong"
    grep -qF "$(value "found['options'][-1]['error']" line)" err ||
        fail "$wrong: kolo info says $(grep wrong: text), kolo run $(<err)"
    expect "$wrong" "True" "$(value "'$wrong: give' in found['options'][-1]['error']" line)"
    expect "addresses with $wrong" "$(value "found['addresses']" right)" "$(value "found['addresses']" line)"
done
both KOLO_ENCRYPT=2 KOLO_NET=eth0,,eth1 KOLO_TIMEOT=1
expect "three options that are wrong" 3 "$(grep -c '^ *wrong: KOLO_' text)"
expect "addresses by a filter that is none" True "$(value "'KOLO_NET=eth0,,eth1' in found['addresses'][0]['error']" line)"
both KOLO_NET='=nothing-of-this-name'
expect "no interface" "[]" "$(value "[k for k in found['addresses'][0] if k != 'error']" line)"
for wrong in --plan\ 4 --config-doc; do
    # shellcheck disable=SC2086
    code=0 && "$kolo" info --json $wrong >/dev/null 2>&1 || code=$?
    expect "--json $wrong" 64 "$code"
done
code=0 && "$kolo" info --json >/dev/full 2>/dev/null || code=$?
expect "a full disk" 74 "$code"
for help in --help version "run --help" "help bench" "doctor --usage" "agent --help"; do
    # shellcheck disable=SC2086
    code=0 && "$kolo" $help >/dev/full 2>/dev/null || code=$?
    expect "a full disk under kolo $help" 74 "$code"
done

# ---- in a job
run -n 2 --no-prefix -- "$kolo" info
expect "ranks that share memory" 1 "$(grep -c '^lanes .*; in this job 0: all ranks share memory$' <<<"$out")"
KOLO_STREAMS=3 run -n 2 --no-prefix --transport tcp -- "$kolo" info
expect "connections, told once" 1 "$(grep -c '^lanes .*; in this job 3 between two ranks$' <<<"$out")"
expect "lines of both ranks" 2 "$(grep -c '^lanes ' <<<"$out")"
KOLO_STREAMS=3 run -n 2 --no-prefix --transport tcp -- "$kolo" info --json
grep job_fewest <<<"$out" >line || fail "rank 0 does not tell connections: $out"
expect "connections" "3 3" "$(value "'{job_fewest} {job_most}'.format(**found['lanes'])" line)"

# A job that does not come together: all is told, and why.
code=0
KOLO_RANK=0 KOLO_WORLD_SIZE=2 KOLO_INIT_TIMEOUT=1 KOLO_RENDEZVOUS=127.0.0.1:0 \
    "$kolo" info --json >line 2>err || code=$?
[[ $code != 0 ]] || fail "kolo info in half a job is a success"
expect "half a job" True "$(value "found['memory']['total_bytes'] > 0 and 'kolo_init' in found['lanes']['error']" line)"

# Variables of a job without a rank, as kubectl exec finds them in a pod: nobody joins.
KOLO_WORLD_SIZE=2 KOLO_INIT_TIMEOUT=1 "$kolo" info >text || fail "kolo info beside a job fails"

finish
