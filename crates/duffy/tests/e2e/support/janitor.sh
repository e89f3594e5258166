# Cleans up after a test, however it ends: started by the test, it acts when the test's end of its standard input closes.
# Arguments: the mark that the test's processes carry in their environment, the test's directory, "keep" or "remove".
trap '' HUP INT QUIT TERM
mark=$1 directory=$2 fate=$3

# Lines: "watch PID SIGNAL" for a program that was started, "forget PID" for one that has ended.
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

# Kills a process and its descendants. Groups would not do: sshd and PostgreSQL put their children in sessions of their own.
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

# What escaped its parent is known by its mark. Twice, as the first pass may meet a process that is just starting another.
for _ in 1 2; do
    for environ in $(grep -lzx "DUFFY_TEST_MARK=$mark" /proc/[0-9]*/environ 2>/dev/null); do
        pid=${environ#/proc/}
        kill -KILL "${pid%/environ}" 2>/dev/null
    done
done

if [ "$fate" = remove ]; then
    for _ in 1 2 3 4 5; do
        rm -rf -- "$directory" 2>/dev/null && break
        sleep 0.1
    done
fi
