# Tab completion of ganmnist for zsh. Add this line to ~/.zshrc:
#   eval "$(ganmnist completion zsh)"
_ganmnist() {
    local line="${(j: :)words[1,CURRENT-1]} $PREFIX"
    local -a found
    found=(${(f)"$("${(Q)words[1]}" completion candidates "$line" 2>/dev/null)"})
    if compset -P '*='; then
        found=("${found[@]#*=}")
    fi
    if (( $#found )); then
        compadd -Q -S '' -- $found
    else
        _files
    fi
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
compdef _ganmnist ganmnist
