# The tests' machine room, a directory: free/NAME.json lie there, ID:NAME.json in taken/ are those that node ID has. A move
# is atomic, so no machine is ever taken twice. Prints what it knows of the machine, one line of JSON.
# Arguments: provision or deprovision, the directory, the node's id, the address that the node had before (or nothing).
set -eu
action=$1 id=$3 address=$4
cd "$2"
echo "$action $id" >>events.log

if [ -e "$action.fail" ]; then
    echo "machine room: no $action today" >&2
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
    # A playbook that was killed may have taken one for this node already.
    had=$(taken_by "$id")
    if [ -n "$had" ]; then
        printf '%s\n' "$had"
        return
    fi
    wanted=
    if [ -n "$address" ]; then
        wanted=$(grep -lF "\"$address\"" free/*.json 2>/dev/null || :)
    fi
    for file in $wanted free/*.json; do
        if mv "$file" "taken/$id:${file#free/}" 2>/dev/null; then
            printf 'taken/%s\n' "$id:${file#free/}"
            return
        fi
    done
    echo "machine room: none is free" >&2
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

# A test may hold a playbook when its deed is done, but not yet told.
if [ -e "$action.hold" ]; then
    : >"$action.held"
    while [ -e "$action.hold" ]; do
        sleep 0.05
    done
fi
