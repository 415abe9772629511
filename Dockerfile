# ecg-vlm serve on the CPU, as an ordinary user. Build and run, with nothing writable but the memory of /tmp:
#   docker build -t ecg-vlm .
#   docker run --rm --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges -p 127.0.0.1:8571:8571 \
#       -e ECG_VLM_TOKEN=choose-one ecg-vlm
# Then open http://127.0.0.1:8571/#token=choose-one
FROM python:3.11-slim

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /src
COPY constraints.txt pyproject.toml README.md LICENSE NOTICE ./
COPY ecg_vlm ecg_vlm
COPY render render
COPY recipes recipes
COPY eval eval
# The CPU build of torch is 200 MB in place of 3 GB.
RUN pip install -c constraints.txt torch --index-url https://download.pytorch.org/whl/cpu \
    && pip install -c constraints.txt ".[serve]" \
    && rm -r /src/* \
    && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin ecg

# What numba compiles is stored here once, and copied to /tmp at every start: it asks for a folder that it may write to.
WORKDIR /
RUN NUMBA_CACHE_DIR=/opt/numba python -m ecg_vlm render simulated /page.png \
    && NUMBA_CACHE_DIR=/opt/numba python -m ecg_vlm digitize /page.png /digitized \
    && rm -r /page.png /digitized && chmod -R a+rX /opt/numba

USER 10001
ENV HOME=/tmp NUMBA_CACHE_DIR=/tmp/numba MPLCONFIGDIR=/tmp
EXPOSE 8571
STOPSIGNAL SIGINT
HEALTHCHECK --start-period=60s CMD ["python", "-c", \
    "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8571/health', timeout=5)"]
ENTRYPOINT ["sh", "-c", "cp -r /opt/numba /tmp/ && exec python -m ecg_vlm serve --host 0.0.0.0 \"$@\"", "ecg-vlm"]
