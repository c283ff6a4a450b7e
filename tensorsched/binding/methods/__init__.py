"""The methods of `Attachment`, by what their user does; each is a function of the attachment."""
