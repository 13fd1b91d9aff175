#!/usr/bin/env bash
# Unpacks firewalld into the directory given, for the test beside it. It is not installed: its package would start it, and it would
# filter this host's traffic. Usage: firewalld.sh DIRECTORY
set -euo pipefail

mkdir -p "$1"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
chmod 755 "$scratch" # for apt's own user
cd "$scratch"
timeout 300 apt-get -o Acquire::Retries=3 download firewalld python3-firewall python3-nftables
for package in *.deb; do dpkg-deb --extract "$package" "$scratch/root"; done
cp -rT "$scratch/root" "$1"
