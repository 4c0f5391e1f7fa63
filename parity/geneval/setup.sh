# mmdet 2.28.2, which GenEval runs on, beside mmdet 3 in a folder of its own. mmcv 1.7.2 without its operators builds only
# with an old setuptools.
set -e
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps \
  --target "$VENV/mmdet2" --upgrade mmcv==1.7.2 mmdet==2.28.2
