#!/bin/bash
# Format, static analysis and types. Runs all of them and fails if one of them does.
#   FIX=1               repairs the formatting instead of only telling
step=check
source "$(dirname "$0")/common.sh"
export PATH="$root/.venv/bin:$PATH"
status=0
mapfile -t c_files < <(find native -name '*.[ch]' | sort)
mapfile -t smk_files < <(find Snakefile workflow -name Snakefile -o -name '*.smk' | sort)

run() {
    say "$1"
    "$@" || { status=1; say "FAILED: $1"; }
}

if [[ -n ${FIX:-} ]]; then
    clang-format -i "${c_files[@]}"
    ruff check --quiet --fix ftmb tests || true
    ruff format --quiet ftmb tests
    snakefmt "${smk_files[@]}"
fi
run clang-format --dry-run -Werror "${c_files[@]}"
# The compiler checks formats with the real types; cppcheck guesses those of unknown headers.
run cppcheck --quiet --std=c11 --language=c --error-exitcode=1 --inline-suppr -j 2 \
    --library=envs/cppcheck.cfg --enable=warning,performance,portability \
    --suppress=missingIncludeSystem --suppress=invalidPrintfArgType_uint \
    --suppress=invalidPrintfArgType_sint -I native native
# clang-tidy needs the build's flags, and the header that the build makes.
configure --buildtype=release
logged build-id ninja -C "$build" app/build_id.h || fail "the build does not begin"
tidy() {
    printf '%s\n' "${c_files[@]}" | grep '\.c$' | grep -vE '^native/(tests|fuzz|sim)/' \
        | xargs -n 4 -P 2 clang-tidy -p "$build" --quiet 2>/dev/null
}
run tidy
run ruff check ftmb tests
run ruff format --check ftmb tests
run mypy
run snakefmt --check "${smk_files[@]}"
exit $status
