# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2034 # variables are for those who source this file
#
# sshd on the hosts of hosts.sh, to be sourced after it: a real one, on another port and for another
# user, with keys made on the fly. Nothing of the machine's own ssh is read or changed.
#
#   ssh_up host2 host3       starts sshd there
#   "${SSH[@]}"              options of kolo run with which it gets there
#
# The user is a number without a name's rights: SSH_USER, of the group SSH_GROUP.

SSH_FOLDER=
SSH_PORT=2222
SSH=()

ssh_need() {
    [[ -x /usr/sbin/sshd ]] || { echo "needs sshd (apt-get install openssh-server)"; exit 1; }
}

# A user that may log in, whose files are in SSH_FOLDER. Only hosts see it: they get their own passwd.
_ssh_user() {
    local file
    for file in passwd group shadow; do
        cp /etc/$file "$SSH_FOLDER/$file"
    done
    echo "kolouser:x:4711:4711::$SSH_FOLDER/home:/bin/bash" >>"$SSH_FOLDER/passwd"
    echo "kolouser:x:4711:" >>"$SSH_FOLDER/group"
    echo "kolouser:*:19000:0:99999:7:::" >>"$SSH_FOLDER/shadow"
    mkdir -p "$SSH_FOLDER/home"
    ssh-keygen -q -t ed25519 -N '' -f "$SSH_FOLDER/key" </dev/null
    ssh-keygen -q -t ed25519 -N '' -f "$SSH_FOLDER/host_key" </dev/null
    cp "$SSH_FOLDER/key.pub" "$SSH_FOLDER/authorized_keys"
    chown -R 4711:4711 "$SSH_FOLDER/home"
    chmod 755 "$SSH_FOLDER" "$SSH_FOLDER/home"
    cat >"$SSH_FOLDER/sshd_config" <<END
Port $SSH_PORT
HostKey $SSH_FOLDER/host_key
AuthorizedKeysFile $SSH_FOLDER/authorized_keys
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
MaxStartups 200
END
    cat >"$SSH_FOLDER/ssh_config" <<END
Host *
    User kolouser
    Port $SSH_PORT
    IdentityFile $SSH_FOLDER/key
    IdentitiesOnly yes
    UserKnownHostsFile $SSH_FOLDER/known_hosts
    GlobalKnownHostsFile /dev/null
END
    : >"$SSH_FOLDER/known_hosts"
    SSH=(--ssh "ssh -F $SSH_FOLDER/ssh_config")
}

# ssh_up <host>...
ssh_up() {
    local name i
    if [[ -z $SSH_FOLDER ]]; then
        SSH_FOLDER=$HOSTS_FOLDER/ssh
        mkdir -p "$SSH_FOLDER"
        _ssh_user
    fi
    for name in "$@"; do
        # shellcheck disable=SC2016 # it expands them itself
        on "$name" bash -c '
            for file in passwd group shadow; do mount --bind "$1/$file" /etc/$file; done
            mkdir -p /run/sshd && exec /usr/sbin/sshd -D -e -f "$1/sshd_config"' - "$SSH_FOLDER" \
            </dev/null >>"$SSH_FOLDER/$name.log" 2>&1 &
        disown # it ends with its host
        for ((i = 0; i < 100; i++)); do
            on "$name" bash -c "exec 3<>/dev/tcp/127.0.0.1/$SSH_PORT" 2>/dev/null && break
            sleep 0.05
        done
        # As it is known after a first login by hand, under all names of the host.
        awk -v names="[$name]:$SSH_PORT,[10.77.0.${name#host}]:$SSH_PORT,[fd77::${name#host}]:$SSH_PORT" \
            '{ print names, $1, $2 }' "$SSH_FOLDER/host_key.pub" >>"$SSH_FOLDER/known_hosts"
    done
}
