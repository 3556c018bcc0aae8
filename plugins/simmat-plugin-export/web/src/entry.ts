/** The page: what is seen of it, on the engine that computes in a worker. */

import { showFailure, startPage } from "./page/main";
import { WorkerEngine } from "./worker_engine";

try {
  startPage(new WorkerEngine(document));
} catch (error) {
  showFailure(error);
}
