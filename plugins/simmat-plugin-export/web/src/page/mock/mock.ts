/** The page with the engine without a model; tests look at it through `window.mock`. */

import { startPage } from "../main";
import { cocoDocument } from "../saving/coco";
import { tableCsv } from "../saving/table_csv";
import { MockEngine, mockCircles } from "./mock_engine";

const hasClasses = location.hash.includes("classes");
const engine = new MockEngine(hasClasses);
Object.assign(window, { mock: { engine, mockCircles, cocoDocument, tableCsv, ...startPage(engine) } });
