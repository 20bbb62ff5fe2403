// The error page has no figures of its own; it keeps theme, keys and the capture card alive.
import { startShell } from "./shell.js";

startShell({ status: null, everyMs: 5000 });
