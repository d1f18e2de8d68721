# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# What the tests of train_bytes share: a small text, a small model, and a way to start ranks.

fail() {
    echo "FAIL: $*"
    exit 1
}

# Text with something to learn, of some size: numbered sentences in 40 files.
make_text() {
    mkdir -p "$1"
    local file
    for file in $(seq 40); do
        seq -f "the %g th turn of the round goes to the left, " "$file" 7 700 >"$1/part$file.txt"
    done
}

model=(--layers 2 --width 32 --heads 2 --context 32 --batch 6 --held-out-bytes 4096 --threads 1)

# train <ranks> <arguments of train_bytes>: ends within a minute.
train() {
    local ranks=$1
    shift
    timeout -k 5 60 "$BIN_DIR/kolo" run -n "$ranks" -- "$BIN_DIR/train_bytes" "${model[@]}" "$@"
}

# same_losses <csv> <csv> <relative tolerance>: the same steps, and losses that agree.
same_losses() {
    awk -F, -v tolerance="$3" '
        FNR == 1 { next }
        NR == FNR { loss[$1] = $2; rows++; next }
        {
            others++
            if (!($1 in loss)) { print "step " $1 " is only in the second"; wrong = 1; next }
            difference = loss[$1] > $2 ? loss[$1] - $2 : $2 - loss[$1]
            if (difference > tolerance * $2) {
                print "step " $1 ": loss " loss[$1] " and " $2
                wrong = 1
            }
        }
        END {
            if (rows == 0 || rows != others) { print rows + 0 " and " others + 0 " steps"; wrong = 1 }
            exit wrong
        }' "$1" "$2"
}

# weights <checkpoint>: parameters, mean and variance, which the head and seconds that differ come before.
weights() {
    tail -c +105 "$1" | head -c -8 | sha1sum
}

# same_weights <checkpoint> <checkpoint> <tolerance>: parameters, mean and variance agree.
same_weights() {
    paste -d ' ' <(tail -c +105 "$1" | head -c -8 | od -An -v -w4 -tf4) \
        <(tail -c +105 "$2" | head -c -8 | od -An -v -w4 -tf4) | awk -v tolerance="$3" '
        NF != 2 { wrong = 1 }
        { difference = $1 > $2 ? $1 - $2 : $2 - $1; if (difference > most) most = difference }
        END {
            if (NR == 0 || wrong || most > tolerance) { print NR " numbers differ by up to " most; exit 1 }
        }'
}

# last_loss <csv>: mean of the last 20 steps.
last_loss() {
    tail -n 20 "$1" | awk -F, '{ sum += $2 } END { print sum / NR }'
}
