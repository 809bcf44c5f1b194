// Lets the browser save a file that the server has made.
watch(["file"], () => {
  if (!props.file.path) return;
  const link = document.createElement("a");
  link.href = "gradio_api/file=" + encodeURI(props.file.path);
  link.download = props.file.name;
  document.body.append(link);
  link.click();
  link.remove();
});
