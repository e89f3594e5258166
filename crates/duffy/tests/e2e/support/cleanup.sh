# Cleans up after a test, however the test ends: it waits until the test closes the standard input of this script.
# Arguments: the mark in the environment of the test's processes, the test's directory, "keep" or "remove".
trap '' HUP INT QUIT TERM
mark=$1 directory=$2 action=$3

# Input lines: "watch PID SIGNAL" when a process starts, "forget PID" when it has ended.
watched=
while read -r verb pid signal; do
    case $verb in
    watch) watched="$watched $pid:$signal" ;;
    forget)
        rest=
        for entry in $watched; do
            [ "${entry%%:*}" = "$pid" ] || rest="$rest $entry"
        done
        watched=$rest
        ;;
    esac
done

# Kills a process and its descendants. Killing groups is not enough: children of sshd and PostgreSQL have their own sessions.
kill_tree() {
    for child in $(cat "/proc/$1/task/"*/children 2>/dev/null); do
        kill_tree "$child"
    done
    kill -KILL "$1" 2>/dev/null
}

for entry in $watched; do
    pid=${entry%%:*} signal=${entry#*:}
    if [ "$signal" != KILL ] && kill "-$signal" "$pid" 2>/dev/null; then
        tries=250
        while [ "$tries" -gt 0 ] && kill -0 "$pid" 2>/dev/null; do
            tries=$((tries - 1))
            sleep 0.02
        done
    fi
    kill_tree "$pid"
done

# Kill the other processes with the mark. Further passes find processes that start during the first one. A process that is just
# replacing its program has no environment for a moment.
for _ in 1 2 3; do
    for environ in $(grep -lzx "DUFFY_TEST_MARK=$mark" /proc/[0-9]*/environ 2>/dev/null); do
        pid=${environ#/proc/}
        kill -KILL "${pid%/environ}" 2>/dev/null
    done
    sleep 0.02
done

if [ "$action" = remove ]; then
    for _ in 1 2 3 4 5; do
        rm -rf -- "$directory" 2>/dev/null && break
        sleep 0.1
    done
fi
