# shellcheck shell=bash
# Runs parts of a test run one after the other, and says at the end how each went.

parts=() # "seconds result name"

# part NAME COMMAND...: in a shell of its own that stops at the first error; the run goes on.
part() {
    local name=$1 start=$SECONDS status
    shift
    printf '\n=== %s\n' "$name"
    set +e
    (
        set -e
        "$@"
    ) </dev/null
    status=$?
    set -e
    local result=ok
    case $status in
        0) ;;
        77) result=skipped ;; # it has said why
        *) result=FAILED ;;
    esac
    printf -- '--- %s: %s in %d s\n' "$name" "$result" $((SECONDS - start))
    parts+=("$((SECONDS - start)) $result $name")
}

# summary: the table, then the line that counts; fails when a part has failed.
summary() {
    local line seconds result name failed=0 skipped=0
    printf '\n%-28s %7s  %s\n' part seconds result
    for line in "${parts[@]}"; do
        read -r seconds result name <<<"$line"
        [[ $result != FAILED ]] || failed=$((failed + 1))
        [[ $result != skipped ]] || skipped=$((skipped + 1))
        printf '%-28s %7d  %s\n' "$name" "$seconds" "$result"
    done
    printf '%-28s %7d\n\n' total "$SECONDS"
    echo "$((${#parts[@]} - failed - skipped)) passed, $failed failed$( ((skipped == 0)) || echo ", $skipped SKIPPED")"
    ((failed == 0))
}
