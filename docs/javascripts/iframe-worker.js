/* A page read from a file may start no worker, and the search is one: there it runs in a hidden frame instead. */
if (location.protocol === "file:")
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.append(this.frame);
      const inside = this.frame.contentWindow;
      this.ready = new Promise((resolve) => {
        inside.document.open();
        inside.importScripts = (...urls) =>
          Promise.all(
            urls.map(
              (url) =>
                new Promise((loaded) => {
                  const script = inside.document.createElement("script");
                  script.src = url;
                  script.onload = loaded;
                  inside.document.body.append(script);
                }),
            ),
          );
        inside.postMessage = (data) => {
          const message = new MessageEvent("message", { data });
          this.dispatchEvent(message);
          this.onmessage?.(message);
        };
        inside.document.write("<body></body>");
        inside.document.close();
        inside.importScripts(url).then(resolve);
      });
    }
    postMessage(data) {
      this.ready.then(() => this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data })));
    }
    terminate() {
      this.frame.remove();
    }
  };
