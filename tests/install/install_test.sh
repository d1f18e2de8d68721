#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Installs kolo, moves the installed tree, and builds and runs a user's program against it both ways: by
# find_package in CMake and by pkg-config on a command line, in C and in C++.
set -euo pipefail

scratch=$(mktemp -d "$PWD/XXXXXX")
trap 'rm -rf "$scratch"' EXIT
prefix=$scratch/moved
consumer=$SOURCE_DIR/tests/install/consumer

flags=()
case $SANITIZE in
address) flags=(-fsanitize=address -fsanitize=undefined) ;;
thread) flags=(-fsanitize=thread) ;;
esac

# expect_world <program>: it runs alone and says so.
expect_world() {
    local output
    output=$("$@")
    echo "$output"
    [[ $output =~ ^kolo\ [0-9.]+,\ rank\ 0\ of\ 1$ ]] || { echo "unexpected output"; exit 1; }
}

cmake --install "$BUILD_DIR" --prefix "$scratch/installed" >"$scratch/log"
mv "$scratch/installed" "$prefix"

# Exactly one header, the library under its three names, and both programs.
[[ $(cd "$prefix" && find include -type f) == include/kolo/kolo.h ]]
libdir=$(dirname "$(find "$prefix" -name libkolo.so)")
[[ -L $libdir/libkolo.so && -L $libdir/libkolo.so.0 && -f $libdir/libkolo.so.0.1.0 ]]
readelf -d "$libdir/libkolo.so" | grep -q 'SONAME.*\[libkolo\.so\.0\]'
if [[ -e $BIN_DIR/kolo ]]; then
    "$prefix/bin/kolo" --version
    "$prefix/bin/kolorun" --version
fi
# Nothing that is installed still points at where it was built.
if grep -rlF "$BUILD_DIR" "$libdir/cmake" "$libdir/pkgconfig" ||
    readelf -d "$libdir/libkolo.so" | grep -F "$BUILD_DIR"; then
    echo "the installed tree refers to the build folder"
    exit 1
fi

echo "find_package"
cmake -G Ninja -S "$consumer" -B "$scratch/build" -DCMAKE_PREFIX_PATH="$prefix" \
    -DCMAKE_C_FLAGS="${flags[*]}" -DCMAKE_CXX_FLAGS="${flags[*]}" >>"$scratch/log"
cmake --build "$scratch/build" >>"$scratch/log"
expect_world "$scratch/build/consumer_c"
expect_world "$scratch/build/consumer_cpp"

echo "pkg-config"
export PKG_CONFIG_PATH=$libdir/pkgconfig
[[ $(pkg-config --modversion kolo) == 0.1.0 ]]
read -ra arguments < <(pkg-config --cflags --libs kolo)
"$CC" "${flags[@]}" "$consumer/consumer.c" -o "$scratch/consumer_c" "${arguments[@]}"
c++ "${flags[@]}" "$consumer/consumer.cpp" -o "$scratch/consumer_cpp" "${arguments[@]}"
export LD_LIBRARY_PATH=$libdir
expect_world "$scratch/consumer_c"
expect_world "$scratch/consumer_cpp"
