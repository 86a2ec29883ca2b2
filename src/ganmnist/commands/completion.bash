# Tab completion of ganmnist for bash. Add this line to ~/.bashrc:
#   eval "$(ganmnist completion bash)"
_ganmnist() {
    local IFS=$'\n' line=${COMP_LINE:0:COMP_POINT}
    local word=${line##*[[:space:]]}
    # shellcheck disable=SC2207  # mapfile needs bash 4
    COMPREPLY=($("$1" completion candidates "$line" 2>/dev/null))
    # Bash completes only the part after the last character of COMP_WORDBREAKS.
    if [[ $word == *=* && $COMP_WORDBREAKS == *=* ]]; then
        COMPREPLY=("${COMPREPLY[@]#"${word%=*}="}")
    fi
}
complete -o default -o nospace -F _ganmnist ganmnist
