#!/bin/sh
# What the build stages of the images run; build.py says how the host's package settings get here.
#   install.sh libraries FOLDER UV-ARGUMENTS...   FOLDER's requirements.txt by its constraints.txt into /opt/venv; nothing else is left
#   install.sh tools                              what builds dail's wheel, into /opt/tools
#   install.sh dail                               dail itself, from this folder, into /opt/dail
set -eu

# Where packages come from is the host's business: mounted while building, never kept in a layer.
if [ -f /run/secrets/host ]; then . /run/secrets/host; fi
export UV_NO_CACHE=1 UV_LINK_MODE=copy UV_NO_PROGRESS=1 UV_PYTHON_DOWNLOADS=never PYTHONDONTWRITEBYTECODE=1 DEBIAN_FRONTEND=noninteractive

libraries() {
    folder="$1"
    shift
    installed="$(dpkg-query --show --showformat '${Package}\n' | sort)"
    fetch_uv "$folder"
    /opt/tools/bin/uv venv --quiet --python "$(command -v python3)" /opt/venv
    /opt/tools/bin/uv pip install --quiet --python /opt/venv/bin/python --constraint "$folder/constraints.txt" \
        --requirement "$folder/requirements.txt" "$@"
    site="$(/opt/venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
    echo /opt/dail > "$site/dail.pth"
    if [ -f "$folder/hollow_cuda.py" ]; then
        packages gcc libc6-dev
        python3 "$folder/hollow_cuda.py" "$site"
    fi
    find "$site" -name "*.a" -delete
    compile /opt/venv/bin/python "$site"
    rm -rf /opt/tools
    # What was there before stays, and nothing else.
    dpkg-query --show --showformat '${Package}\n' | sort > /tmp/now
    echo "$installed" | comm -13 - /tmp/now | xargs --no-run-if-empty apt-get purge -qq --yes --auto-remove > /dev/null
    rm -rf /tmp/now /var/lib/apt/lists/* /var/cache/apt /var/log/apt /var/log/dpkg.log /var/cache/ldconfig/aux-cache
}

tools() {
    fetch_uv .
}

dail() {
    wheel="$(mktemp -d)"
    /opt/tools/bin/uv build --quiet --wheel --python "$(command -v python3)" --out-dir "$wheel"
    /opt/tools/bin/uv pip install --quiet --python "$(command -v python3)" --no-deps --target /opt/dail "$wheel"/*.whl
    # Its commands are for the Python that the libraries are in.
    sed -i '1s|.*|#!/opt/venv/bin/python|' /opt/dail/bin/*
    compile python3 /opt/dail
}

packages() {
    apt-get update -qq
    apt-get install -qq --yes --no-install-recommends "$@" > /dev/null
}

fetch_uv() {
    command -v pip3 > /dev/null || packages python3-pip
    pip3 install --quiet --root-user-action=ignore --no-cache-dir --target /opt/tools "$(grep '^uv==' "$1/constraints.txt")"
}

compile() {
    # The root file system is read-only where this runs. By content, not by time: a layer's times are not kept to the nanosecond.
    # Packages carry modules for later Pythons, which do not compile on this one; that is no failure.
    "$1" -m compileall -qq -j 0 --invalidation-mode unchecked-hash "$2" || :
}

step="$1"
shift
"$step" "$@"
