# Takes machines from a directory and returns them: free/NAME.json are the free ones, taken/ID:NAME.json belong to node ID. A move
# is atomic, so no machine is taken twice. Prints the result for the machine, one line of JSON.
# Arguments: provision or deprovision, the directory, the id of the node, the node's previous address (or nothing).
set -eu
action=$1 id=$3 address=$4
cd "$2"
echo "$action $id" >>events.log

if [ -e "$action.fail" ]; then
    echo "machines.sh: $action fails on purpose" >&2
    exit 1
fi

taken_by() {
    for file in taken/"$1":*.json; do
        if [ -e "$file" ]; then
            printf '%s\n' "$file"
        fi
    done
}

take() {
    # A killed playbook may have taken a machine for this node.
    own=$(taken_by "$id")
    if [ -n "$own" ]; then
        printf '%s\n' "$own"
        return
    fi
    preferred=
    if [ -n "$address" ]; then
        preferred=$(grep -lF "\"$address\"" free/*.json 2>/dev/null || :)
    fi
    for file in $preferred free/*.json; do
        if mv "$file" "taken/$id:${file#free/}" 2>/dev/null; then
            printf 'taken/%s\n' "$id:${file#free/}"
            return
        fi
    done
    echo "machines.sh: no machine is free" >&2
    exit 1
}

case $action in
provision)
    file=$(take)
    cat "$file"
    ;;
deprovision)
    for file in $(taken_by "$id"); do
        mv "$file" "free/${file#taken/"$id":}"
    done
    ;;
esac

# A test can pause a playbook after the move and before its result.
if [ -e "$action.pause" ]; then
    : >"$action.paused"
    while [ -e "$action.pause" ]; do
        sleep 0.05
    done
fi
