// Colours the demo node in the editor, as version 2 colours its frame.
import { app } from "../../scripts/app.js"

app.registerExtension({
  name: "cvs.DemoCaption",
  nodeCreated(node) {
    if (node.comfyClass === "DemoCaption") node.color = "#f97316"
  },
})
