# Installs, removes or reads the tenants' keys in a node's authorized_keys.
#
# Lines before the separator are the node's own and stay as they are. The separator and everything after it are the
# tenants' part. The script copies the old file, to keep its mode, owner and security context, writes the new content to
# the copy, and renames the copy over the old file. It says $HOME, not ~root: simulated machines, and nodes that Duffy
# reaches as another user, have the file elsewhere. Keys come on standard input only, and the script checks the number of
# their bytes: a connection that breaks looks like the end of the input.
#
# Each program that a small machine starts costs about a millisecond. The shell itself reads and writes all lines, and starts
# cp, flock and mv only; mksh has no printf of its own.
#
# script.rs puts assignments of these variables before the script:
#   work       what to do: install, remove or read
#   number     the number of this work, for the fence; may be empty
#   size       how many bytes of keys to install, or of the file to read
#   separator  the line that begins the tenants' part
#   fence      what the line with the number begins with
#   digits     how many digits a number has at most
# build.rs removes the comments and puts the script on one line; join_lines.rs says what the script must not contain.
#
# Exit statuses: 65 failure, with a message; 66 a signal came; 67 another command replaced the file; 68 the file has a
# higher number.
#
# Late commands
#
# A process may sleep between the check of its lease and the command. A command may hang after its client gave up. Both
# may go on when the node already belongs to another tenant. Two checks stop such late commands.
#
# The fence is a number that the database raises with each claim of the node. It is in the line after the separator, as a
# comment to sshd, so the rename that changes the keys also changes the number. A command with a lower number than the
# file's changes nothing and exits with 68. A removal keeps the line. A command without a number is not checked, and keeps
# the line too.
#
# The inode tells whether another command replaced the file. Each command puts a new file in the place of the old one, even
# if it has nothing to remove. A command does not replace a file that is not the one it began with: it exits with 67, its
# caller starts it again, and the new run meets the fence. Each command keeps the old file open, because the system could
# give the inode of a deleted file to a new one.
#
# Example: command L is late and has the number 5, command N is current and has 6. Each reads the number, builds its file,
# takes the lock on the directory, compares inode and number with what it read, and renames.
# - N renames before L reads: L reads 6 and exits with 68.
# - N renames after L read and before L has the lock: L finds another inode and exits with 67.
# - L renames before N has the lock: N exits with 67, starts again, and replaces what L wrote. N's keys are the last ones,
#   and only then does N report success.
# - The comparison and the rename are one step for other commands, as both happen under the lock. A command waits for
#   nothing while it has the lock, and the lock ends with its process.
#
# Limits: without flock, or where the file system has no locks on directories, N can rename between L's comparison and L's
# rename, about a millisecond on the node. Nothing protects from a program that writes the file in place, as the Python
# original does, or from a machine that was made anew at the same address: its file has no number yet.

# POSIX has -ef since 2024; the shells had it before.
# shellcheck disable=SC3013

LC_ALL=C
export LC_ALL
umask 077
file=${HOME:?}/.ssh/authorized_keys
new=

fail() {
    echo "$file: $1" >&2
    exit 65
}

clean() {
    [ -z "$new" ] || rm -f "$new"
}

# Copies the node's own part of a file from standard input to standard output. Sets `found` to the number in the file, if it
# has one, and `unended` to the last line of the own part, if that has no end.
copy_own_part() {
    found=
    unended=
    while IFS= read -r line || { [ -n "$line" ] && unended=$line; }; do
        if [ "${line#*"${separator:?}"}" = "$line" ]; then
            printf %s "$line" || return 1
            [ -n "$unended" ] || echo || return 1
        else
            unended=
            IFS= read -r line || :
            rest=${line#"${fence:?}"}
            [ "$fence$rest" = "$line" ] && [ -n "$rest" ] && [ -z "${rest##*[0-9]}" ] &&
                only_digits "$rest" && found=$rest
            break
        fi
    done
    return 0
}

# Whether a text has digits only. The shells differ in patterns that say "none of these".
only_digits() {
    text=$1
    while [ -n "$text" ]; do
        [ -z "${text##[0-9]*}" ] || return 1
        text=${text#?}
    done
}

# Whether the first number is above the second. Some shells have 32-bit arithmetic, so it compares halves of nine digits. The
# 1 before each half keeps it from being read as octal.
is_above() {
    pad "$1"
    high=1${padded%?????????}
    low=1${padded#?????????}
    pad "$2"
    [ "$high" -gt "1${padded%?????????}" ] && return
    [ "$high" -eq "1${padded%?????????}" ] && [ "$low" -gt "1${padded#?????????}" ]
}

# Sets `padded` to a number with zeros in front of it, 18 digits in all.
pad() {
    padded=$1
    while [ ${#padded} -lt "${digits:?}" ]; do
        padded=0$padded
    done
}

trap clean EXIT
trap "exit 66" HUP INT TERM PIPE

if [ "${work:?}" = install ]; then
    [ -f "$file" ] || fail "there is no such file; it must exist and hold the public key of Duffy itself"
else
    # No file is as good as one without keys. But a directory that cannot be searched says nothing about the file.
    if [ -d "$HOME/.ssh" ]; then
        [ -x "$HOME/.ssh" ] || fail "no permission to look for it"
    fi
    [ -e "$file" ] || exit 0
    [ -f "$file" ] || fail "it is not a file"
fi

if [ "$work" = read ]; then
    head -c "${size:?}" "$file" || fail "cannot read it"
    exit 0
fi

if [ -h "$file" ]; then
    target=$(readlink -f "$file") || target=
    [ -f "$target" ] || fail "cannot follow this symbolic link"
    file=$target
fi

[ -r "$file" ] || fail "no permission to read it"
exec 8< "$file"
inode=
[ "$file" -ef /dev/fd/8 ] 2>/dev/null || inode=$(ls -i "$file")

# The shell itself makes the file, and only if there is none of this name: homes can be shared between machines.
new=$file.duffy$$
set -C
true 2>/dev/null > "$new" || new=$(mktemp "$file.XXXXXX") || fail "cannot make a file next to it"
set +C
cp -a "$file" "$new" 2>/dev/null || cp -p "$file" "$new" || fail "cannot copy it"
read_only=
[ -w "$new" ] || { chmod u+w "$new" && read_only=1; }
exec 7> "$new"
copy_own_part <&8 >&7 || fail "cannot write a file next to it"
began_with=$found

# A tenant can have written a number that is longer than Duffy's, and than some shells can compare.
last=$found
[ ${#last} -le "${digits:?}" ] || last=
if [ -n "${number?}" ]; then
    if is_above "${last:-0}" "$number"; then
        echo "$file: it has $fence$last, and this work only $number" >&2
        exit 68
    fi
    last=$number
fi

if [ "$work" = install ] || [ -n "$last" ]; then
    {
        # The last line of the node's own part may lack its end.
        { [ -z "$unended" ] || echo; } &&
            echo "$separator" &&
            { [ -z "$last" ] || echo "$fence$last"; }
    } >&7 || fail "cannot write a file next to it"
fi

if [ "$work" = install ]; then
    while IFS= read -r line; do
        size=$((size - ${#line} - 1))
        { printf %s "$line" && echo; } >&7 || fail "cannot write a file next to it"
    done
    [ "$size" -eq 0 ] && [ -z "$line" ] || fail "the connection broke before all keys had come"
fi

exec 7>&-
[ -z "$read_only" ] || chmod u-w "$new"

directory=${file%/*}
if command -v flock >/dev/null 2>&1 && [ -r "$directory" ]; then
    exec 9< "$directory"
    # Some shells give a program only the descriptors that its command names.
    flock 9 9<&9 2>/dev/null
fi
if [ -z "$inode" ]; then
    [ "$file" -ef /dev/fd/8 ]
else
    [ "$(ls -i "$file")" = "$inode" ]
fi && copy_own_part < "$file" >/dev/null && [ "$found" = "$began_with" ] || {
    echo "$file: somebody else has replaced it meanwhile" >&2
    exit 67
}
mv -f "$new" "$file" || fail "cannot replace it"
new=
