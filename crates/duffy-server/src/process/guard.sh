# Guard over one run of a program. It waits on standard input, whose other end Duffy holds. The line "done" means that
# the program ended by itself, and that what it left running may run on. End of file without that line means that the
# run must stop, or that Duffy itself has ended. Then everything that belongs to the run gets TERM, and after the grace
# KILL, until nothing is left. These belong to the run: the program's group, all processes with the run's mark in their
# environment, and all descendants of these, because ansible's workers and its ssh clients have sessions of their own.
# These do not: ssh's control masters, which other runs may share. They detach, and overwrite their environment with
# their title.
# Arguments: the mark (NAME=value), the grace in fifths of a second.
mark=$1 grace=$2 pid= known=' ' alive=
PATH=$PATH:/usr/bin:/bin

# The service manager may signal every process of the service; the guard must be the last one to end.
trap '' HUP INT QUIT TERM

while read -r word value; do
    case $word in
    pid) pid=$value known=" $value " ;;
    done) exit 0 ;;
    esac
done

nap() { sleep "$1" 2>/dev/null || sleep 1; }

# Sets `known` to all processes that ever belonged to the run, and `alive` to those that still run.
scan() {
    for file in $(grep -Fls -e "$mark" /proc/[0-9]*/environ 2>/dev/null); do
        file=${file#/proc/} file=${file%/environ}
        case $known in *" $file "*) ;; *) known="$known$file " ;; esac
    done
    table=$(grep -Es '^(State|PPid):' /proc/[0-9]*/status 2>/dev/null)
    grown=yes
    while [ "$grown" ]; do
        grown= alive= state=
        while IFS=': 	' read -r path key value _; do
            case $key in
            State) state=$value; continue ;;
            esac
            path=${path#/proc/} path=${path%/status}
            [ "$path" = "$$" ] && continue
            case $known in
            *" $path "*) ;;
            *" $value "*) known="$known$path " grown=yes ;;
            *) continue ;;
            esac
            case $state in Z | X | x) ;; *) alive="$alive$path " ;; esac
        done <<TABLE
$table
TABLE
    done
    # Without /proc, or without grep, only the group can be checked.
    [ "$table" ] || { [ "$pid" ] && kill -s 0 -- "-$pid" 2>/dev/null && alive=group; }
    [ "$alive" ]
}

send() {
    [ "$pid" ] && kill -s "$1" -- "-$pid" 2>/dev/null
    for victim in $alive; do
        [ "$victim" = group ] || kill -s "$1" "$victim" 2>/dev/null
    done
}

scan || exit 0
send TERM
send CONT
while [ "$grace" -gt 0 ]; do
    nap 0.2
    scan || exit 0
    grace=$((grace - 1))
done
tries=50
while [ "$tries" -gt 0 ]; do
    send KILL
    nap 0.1
    scan || exit 0
    tries=$((tries - 1))
done
exit 1
