# Beside mmdet 3: mmdet 2.28.2, which GenEval runs on, in a folder of its own. mmcv 1.7.2 without its operators builds only
# with an old setuptools.
set -e
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps \
  --target "$VENV/mmdet2" --upgrade mmcv==1.7.2 mmdet==2.28.2

# GenEval's rule and the reward server's, in their own words. Without a network the test of the rule skips.
fetch() {
  curl --silent --fail --location --create-dirs --output "$VENV/sources/$1" "https://raw.githubusercontent.com/$2" || return 0
  echo "$3  $VENV/sources/$1" | sha256sum --check --quiet
}
fetch evaluate_images.py djghosh13/geneval/af4902f24d3ca90ebbb446dd9891a59e0f82725f/evaluation/evaluate_images.py \
  c0fdeb8315f7d3ed72b56f466652afba5216f854109c6eeea339f9982474ea46
fetch gen_eval.py yifan123/reward-server/92ac29fb322c028f8840db8f93c950422931710d/reward_server/gen_eval.py \
  bf0c3bedaeba00bd9099f301155e159c0dc170bf154c2d7b7e00dd6a442f3276
