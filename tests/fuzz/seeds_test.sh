#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# seeds_test.sh <program that writes a corpus> <committed corpus>: the corpus is what the program
# writes. Seeds of an older protocol would be refused at once, and the fuzzers would prove nothing.
# To renew it, run the program with the corpus as its argument. And README.md's table of what the
# corpora reach counts their seeds: a table of an older corpus says nothing of this one.
set -euo pipefail

rm -rf seeds
mkdir seeds
"$1" seeds
status=0
while IFS= read -r file; do
    if ! cmp "seeds/$file" "$2/$file"; then
        echo "renew the corpus: $1 $2; and let KOLO__PROTOCOL_VERSION grow, if an older kolo would misread what is new"
        status=1
    fi
done < <(cd seeds && find . -type f)

for target in "$2"/*/; do
    name=$(basename "$(dirname "$2")")/$(basename "$target")
    row="| $name | $(find "$target" -type f | wc -l) |"
    if ! grep -qF "$row" "$2/../../README.md"; then
        echo "README.md has no row '$row': write what ./dev fuzz --coverage says into its table"
        status=1
    fi
done
exit $status
