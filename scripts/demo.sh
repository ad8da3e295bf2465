#!/usr/bin/env bash
# Reproduces the scaling of SGD noise with curvature for an MLP on MNIST: a table, the figures of one network, a report.
# usage: demo.sh CURVKIT [DATA_DIR]      where MNIST is; else $CURVKIT_DATA, else data/ (or downloaded to it)
set -euo pipefail
curvkit=$1
data=${2:-${CURVKIT_DATA:-data}}
has_mnist() { [ -n "$(find -L "$1" "$1/mnist" -maxdepth 1 -name 'train-images-idx3-ubyte*' 2>/dev/null)" ]; }

echo "demo: two networks are trained and measured; some three minutes on two CPU cores without a GPU"
dataset=mnist
if ! has_mnist "$data"; then
    echo "demo: no MNIST in $data; downloading it to data/"
    data=data
    if ! "$curvkit" data fetch mnist --dir "$data"; then
        echo "demo: MNIST could not be downloaded; using the built-in drawn digits in its place"
        dataset=synthetic
    fi
fi
options="--preset quick --dataset $dataset --data-dir $data --out out/demo --overwrite"
# both losses, of the fewest classes: the fastest networks of the table
"$curvkit" reproduce superlinear table1,scaling,alignment --classes 3 $options
echo "demo: the rest, all figures and tables with 3, 6 and 10 classes, takes about half an hour on two CPU cores:"
echo "    $curvkit reproduce superlinear all $options"
