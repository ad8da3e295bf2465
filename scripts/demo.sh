#!/usr/bin/env bash
# Reproduces the scaling of SGD noise with curvature for an MLP on MNIST, in minutes on two CPU cores.
# usage: demo.sh CURVKIT [DATA_DIR]      where MNIST is; else $CURVKIT_DATA, else data/ (or downloaded to it)
set -euo pipefail
curvkit=$1
data=${2:-${CURVKIT_DATA:-data}}
has_mnist() { [ -n "$(find -L "$1" "$1/mnist" -maxdepth 1 -name 'train-images-idx3-ubyte*' 2>/dev/null)" ]; }

dataset=mnist
if ! has_mnist "$data"; then
    echo "demo: no MNIST in $data; downloading it to data/"
    data=data
    if ! "$curvkit" data fetch mnist --dir "$data"; then
        echo "demo: MNIST could not be downloaded; using the built-in drawn digits in its place"
        dataset=synthetic
    fi
fi
"$curvkit" reproduce superlinear all --preset quick --dataset "$dataset" --data-dir "$data" --out out/demo
