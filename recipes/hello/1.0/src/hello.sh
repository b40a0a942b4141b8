#!/bin/sh
# hello [-l LANGUAGE] [NAME]: the program where there is no C compiler.
language=en name=world
if [ "${1-}" = --version ]; then
	echo "hello 1.0"
	exit 0
fi
if [ "${1-}" = -l ] && [ $# -ge 2 ]; then
	language=$2
	shift 2
fi
case ${1--} in
-*) ;;
*) name=$1 && shift ;;
esac
if [ $# -gt 0 ]; then
	echo "usage: hello [--version] [-l LANGUAGE] [NAME]" >&2
	exit 2
fi
case $language in
[A-Za-z][A-Za-z]) ;;
*) language=none ;;
esac
if ! read -r word 2>/dev/null <"@HELLO_DATA@/$language"; then
	echo "hello: no greeting in language '$language'" >&2
	exit 1
fi
echo "$word, $name!"
