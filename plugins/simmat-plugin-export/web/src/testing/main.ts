/** A page without anything to see, whose engine the tests drive. */

import { WorkerEngine } from "../worker_engine";

declare global {
  interface Window {
    simmatEngine: WorkerEngine;
  }
}

window.simmatEngine = new WorkerEngine(document);
